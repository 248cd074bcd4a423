/**
 * What connections may hold in memory: requests under way, data that still comes in, answers that nobody has read yet.
 *
 * Everything is counted twice, for its connection and for the server. When either count has reached its bound, the
 * connection stops reading its socket until it is called back; connections that wait are called in order. One request
 * may cross a bound, so the most that is ever held is NBD_SERVER_BYTES_MAX + NBD_REQUEST_BYTES_MAX, plus one piece of
 * input for each connection.
 *
 * Buffers that come back are handed out again: clients send and read in one or two sizes, and fresh memory costs more
 * than filling it.
 */
import { NBD_CONNECTION_BYTES_MAX, NBD_SERVER_BYTES_MAX, NBD_STARVING_MS_MAX } from '../../limits.ts';
import type { Clock } from '../../ports.ts';
import type { Lease } from './request.ts';

/**
 * Buffers kept for the next who asks for as many bytes: as much as one connection has under way. Memory that is dropped counts
 * until it is collected, and then the whole heap is gone through for it.
 */
const SPARE_BYTES_MAX: number = NBD_CONNECTION_BYTES_MAX;
const SPARE_SIZES_MAX = 256;

export class ServerMemory {
  readonly #clock: Clock;
  readonly #onStarving: () => void;
  readonly #waiting: Set<ConnectionMemory> = new Set();
  readonly #closed = new AbortController();
  #isWatching = false;
  #heldBytes = 0;
  readonly #spare: Map<number, Buffer[]> = new Map();
  #spareBytes = 0;

  /** `onStarving` is told when a connection that holds little waits for long: others hold all and do not let go. */
  constructor(clock: Clock, onStarving: () => void) {
    this.#clock = clock;
    this.#onStarving = onStarving;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  get isFull(): boolean {
    return this.#heldBytes >= NBD_SERVER_BYTES_MAX;
  }

  hold(lengthBytes: number): void {
    this.#heldBytes += lengthBytes;
  }

  release(lengthBytes: number): void {
    this.#heldBytes -= lengthBytes;
    for (const memory of this.#waiting) {
      if (this.isFull) return;
      if (memory.isFull) continue;
      this.#waiting.delete(memory);
      memory.resume();
    }
  }

  wait(memory: ConnectionMemory): void {
    this.#waiting.add(memory);
    if (!this.#isWatching && memory.hasRoom) void this.#watch();
  }

  forget(memory: ConnectionMemory): void {
    this.#waiting.delete(memory);
  }

  /** A buffer of `lengthBytes`, with anything in it. */
  take(lengthBytes: number): Buffer {
    const spare = this.#spare.get(lengthBytes)?.pop();
    if (spare === undefined) return Buffer.allocUnsafeSlow(lengthBytes);
    this.#spareBytes -= lengthBytes;
    return spare;
  }

  giveBack(buffer: Buffer): void {
    const { byteLength } = buffer;
    const alike = this.#spare.get(byteLength) ?? [];
    if (this.#spareBytes + byteLength > SPARE_BYTES_MAX || this.#spare.size > SPARE_SIZES_MAX) {
      // Other sizes may be asked for now than those that fill it.
      this.#spare.clear();
      this.#spareBytes = alike.length * byteLength;
    }
    if (this.#spareBytes + byteLength <= SPARE_BYTES_MAX) {
      alike.push(buffer);
      this.#spareBytes += byteLength;
    }
    this.#spare.set(byteLength, alike);
  }

  close(): void {
    this.#closed.abort();
  }

  /** Looks from time to time whether somebody waits in vain, as long as somebody waits for others. */
  async #watch(): Promise<void> {
    this.#isWatching = true;
    let before = this.#starving();
    while (before.length > 0) {
      try {
        await this.#clock.sleep(NBD_STARVING_MS_MAX, this.#closed.signal);
      } catch {
        return;
      }
      const now = this.#starving();
      if (now.some(([memory, turn]) => before.some((other) => other[0] === memory && other[1] === turn))) {
        this.#onStarving();
      }
      before = this.#starving();
    }
    this.#isWatching = false;
  }

  /** Who waits though it holds little, and since which of its turns. */
  #starving(): readonly (readonly [ConnectionMemory, number])[] {
    return [...this.#waiting].filter(({ hasRoom }) => hasRoom).map((memory) => [memory, memory.turn]);
  }
}

export class ConnectionMemory {
  readonly #server: ServerMemory;
  readonly #onRoom: () => void;
  #heldBytes = 0;
  #turn = 0;

  /** `onRoom` is called once for each `wait`. */
  constructor(server: ServerMemory, onRoom: () => void) {
    this.#server = server;
    this.#onRoom = onRoom;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Below its own bound, whatever others hold. */
  get hasRoom(): boolean {
    return this.#heldBytes < NBD_CONNECTION_BYTES_MAX;
  }

  get isFull(): boolean {
    return !this.hasRoom || this.#server.isFull;
  }

  /** How often it was called back. */
  get turn(): number {
    return this.#turn;
  }

  hold(lengthBytes: number): void {
    this.#heldBytes += lengthBytes;
    this.#server.hold(lengthBytes);
  }

  release(lengthBytes: number): void {
    this.#heldBytes -= lengthBytes;
    this.#server.release(lengthBytes);
  }

  /** A buffer with anything in it, held until it is given back or abandoned. */
  take(lengthBytes: number): Buffer {
    this.hold(lengthBytes);
    return this.#server.take(lengthBytes);
  }

  giveBack(buffer: Buffer): void {
    this.#server.giveBack(buffer);
    this.release(buffer.byteLength);
  }

  /** As `giveBack`, for a buffer that somebody may still write to or read from. */
  abandon(buffer: Buffer): void {
    this.release(buffer.byteLength);
  }

  /** A user of the lease has ended. `isDone`: nobody looks at its memory any more. */
  end(lease: Lease, isDone: boolean): void {
    lease.users -= 1;
    if (!isDone) lease.buffer = undefined;
    if (lease.users > 0) return;
    if (lease.buffer !== undefined) this.#server.giveBack(lease.buffer);
    this.release(lease.lengthBytes);
  }

  /** Asks to be called when there is room. */
  wait(): void {
    this.#server.wait(this);
  }

  /** Called by the server: it is this connection's turn. */
  resume(): void {
    this.#turn += 1;
    this.#onRoom();
  }

  /** Does not wait any more. */
  forget(): void {
    this.#server.forget(this);
  }
}
