/**
 * A guest: writes to the disks of a tracked item over NBD, many writes at a time, until it is stopped or its server is gone.
 * What it wrote, what was answered and what was flushed is in its model.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Dice } from './dice.ts';
import type { GuestModel } from './guest-model.ts';
import { type Address, CMD, FLAG, NbdClient, type RequestFields, requestBytes } from './nbd-client.ts';

const SECTOR_BYTES = 512;
const DEPTH = 12;
const READ_BYTES = 4 << 20;

export interface BurstOptions {
  /** Each disk gets so much; then it is flushed now and then, but not written. */
  readonly bytesMax: number;
  readonly sectorsMax: number;
  /** Between two requests to a disk, on average. */
  readonly pauseMs: number;
  /** The guest mostly stays in one part of its disk, so large, as programs do: so active chunks are few. */
  readonly windowBytes: number;
  /** Ends by itself when all is written. */
  readonly isBounded: boolean;
}

const SMALL_WRITES: BurstOptions = {
  ...{ bytesMax: 5 << 18, sectorsMax: 16, pauseMs: 2, windowBytes: 1 << 20, isBounded: false },
};

export class Guest {
  readonly #model: GuestModel;
  readonly #dice: Dice;
  readonly #sizes: readonly number[];
  readonly #lines: readonly Line[];
  #isStopping = false;
  #writing: Promise<unknown> = Promise.resolve();

  static async connect(address: Address, sizes: readonly number[], model: GuestModel, dice: Dice): Promise<Guest> {
    const lines: Line[] = [];
    for (const i of sizes.keys()) lines.push(new Line(await NbdClient.open(address, { name: `d${i}` })));
    return new Guest(lines, sizes, model, dice);
  }

  private constructor(lines: readonly Line[], sizes: readonly number[], model: GuestModel, dice: Dice) {
    this.#lines = lines;
    this.#sizes = sizes;
    this.#model = model;
    this.#dice = dice;
  }

  /** Writes until `stop`. */
  start(options: Partial<BurstOptions> = {}): void {
    this.#isStopping = false;
    this.#writing = Promise.all(this.#lines.map((_, disk) => this.#write(disk, { ...SMALL_WRITES, ...options })));
  }

  /** Writes all that it may, and is at rest then. */
  async fill(options: Partial<BurstOptions> = {}): Promise<void> {
    this.start({ ...options, isBounded: true });
    await this.#writing;
  }

  /** Resolves when nothing is under way; what a server did not answer before it went stays unanswered. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#writing;
  }

  /** Flushes all disks. */
  async flush(): Promise<void> {
    await Promise.all(this.#lines.map((_, disk) => this.#flush(disk)));
  }

  /** What it reads; nothing may be under way. */
  async contents(): Promise<readonly Buffer[]> {
    return Promise.all(this.#lines.map((line, disk) => line.read(this.#sizes[disk]!)));
  }

  async close(): Promise<void> {
    await this.stop();
    for (const line of this.#lines) await line.destroy();
  }

  async #write(disk: number, burst: BurstOptions): Promise<void> {
    const { bytesMax, sectorsMax, pauseMs, windowBytes, isBounded } = burst;
    const [model, dice, line, size] = [this.#model, this.#dice, this.#lines[disk]!, this.#sizes[disk]!];
    const window = Math.floor((size - windowBytes) / 4);
    const running = new Set<Promise<void>>();
    const start = (request: Promise<void>): void => {
      // What is not answered is lost to the guest, and that is all.
      const ended = request.catch(() => {}).finally(() => running.delete(ended));
      running.add(ended);
    };
    for (let left = bytesMax; !this.#isStopping && !line.hasEnded && (left > 0 || !isBounded); ) {
      const lengthBytes = dice.between(1, sectorsMax) * SECTOR_BYTES;
      const place = dice.oneIn(60) ? dice.below(size - lengthBytes) : window + dice.below(windowBytes - lengthBytes);
      const offset = place - (place % SECTOR_BYTES);
      if (dice.oneIn(12)) start(this.#flush(disk));
      else if (left > 0 && !model.isBusy(disk, offset, lengthBytes)) {
        left -= lengthBytes;
        start(this.#change(disk, offset, lengthBytes));
      }
      while (running.size >= DEPTH) await Promise.race(running);
      await delay(dice.below(2 * pauseMs + 1));
    }
    await Promise.all(running);
  }

  async #change(disk: number, offset: number, lengthBytes: number): Promise<void> {
    const [model, dice, line] = [this.#model, this.#dice, this.#lines[disk]!];
    const isZeros = dice.oneIn(6);
    const bytes = isZeros ? Buffer.alloc(lengthBytes) : dice.bytes(lengthBytes);
    const hasFua = dice.oneIn(20);
    const flags = (hasFua ? FLAG.fua : 0) | (isZeros && dice.oneIn(2) ? FLAG.noHole : 0);
    const write = model.send(disk, offset, bytes);
    await line.request(
      isZeros
        ? { type: CMD.zeroes, flags, offset, length: lengthBytes }
        : { type: CMD.write, flags, offset, data: bytes },
    );
    model.answer(write);
    if (hasFua) write.isFlushed = true;
  }

  async #flush(disk: number): Promise<void> {
    const sent = this.#model.now();
    await this.#lines[disk]!.request({ type: CMD.flush });
    this.#model.flushed(disk, sent);
  }
}

/** A connection to one disk with several requests under way. */
class Line {
  readonly #client: NbdClient;
  readonly #waiting: Map<bigint, { readonly resolve: () => void; readonly reject: (error: Error) => void }> = new Map();
  #cookie = 0n;
  #isReceiving = false;
  hasEnded = false;

  constructor(client: NbdClient) {
    this.#client = client;
    client.socket.once('close', () => {
      this.hasEnded = true;
    });
  }

  /** Resolves when the server says that it is done. */
  request(fields: RequestFields): Promise<void> {
    this.#cookie += 1n;
    const cookie = this.#cookie;
    return new Promise((resolve, reject) => {
      this.#waiting.set(cookie, { resolve, reject });
      this.#client.send(requestBytes({ ...fields, cookie }));
      if (!this.#isReceiving) void this.#receive();
    });
  }

  async read(lengthBytes: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (let offset = 0; offset < lengthBytes; offset += READ_BYTES) {
      const length = Math.min(READ_BYTES, lengthBytes - offset);
      const [reply] = await this.#client.ask({ type: CMD.read, offset, length });
      if (reply!.error !== 0) throw new Error(`reading ${length} bytes at ${offset}: error ${reply!.error}`);
      pieces.push(reply!.data);
    }
    return Buffer.concat(pieces);
  }

  async destroy(): Promise<void> {
    await this.#client.destroy();
  }

  async #receive(): Promise<void> {
    this.#isReceiving = true;
    try {
      while (this.#waiting.size > 0) {
        const { cookie, error } = await this.#client.reply();
        const waiting = this.#waiting.get(cookie)!;
        this.#waiting.delete(cookie);
        if (error === 0) waiting.resolve();
        else waiting.reject(new Error(`error ${error}`));
      }
    } catch (error) {
      this.hasEnded = true;
      for (const { reject } of this.#waiting.values()) reject(error as Error);
      this.#waiting.clear();
    } finally {
      this.#isReceiving = false;
    }
  }
}
