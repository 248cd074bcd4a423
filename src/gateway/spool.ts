/**
 * The durable queue of one replica: what clients wrote and the gateway answered for, in the order in which it has to reach the store.
 *
 *     place               which replica it is of
 *     <number>.write      one queued write (spool-file.ts); the names are the queue, so there is no journal that could disagree
 *     seen-<key>          an object as it was last seen at the store, for reads while the store is away
 *     staging-<id>        a large object in the making; of no use after a restart
 *     refused-<time>/     a queue that the store did not take, kept for a person
 *
 * Invariants: a write is queued exactly when its file has its name, which it gets when the bytes are durable; it is answered after
 * that. A queue is taken away from its end, so that a crash leaves no hole in it.
 */
import { join } from 'node:path';
import { isBlockferryError } from '../errors.ts';
import type { Ports, RandomAccessFile } from '../ports.ts';
import { encodeFile, readEntry, readPiece, SPOOL_HEADER_BYTES, type SpoolEntry, sha256 } from './spool-file.ts';

export type SpoolPorts = Pick<Ports, 'clock' | 'files' | 'failpoint'>;

/** A write that waits. */
export interface QueuedWrite {
  readonly number: number;
  readonly path: string;
  readonly entry: SpoolEntry;
  /** SHA-256 of the body, of a root. */
  readonly hash?: Uint8Array;
}

const NUMBER_DIGITS = 16;
const WRITE_NAME = /^(\d{16})\.write$/;

export class Spool {
  readonly directory: string;
  readonly #ports: SpoolPorts;
  /** By number. */
  #queue: QueuedWrite[] = [];
  #next = 1;
  #queuedBytes = 0;
  #stagedBytes = 0;

  private constructor(directory: string, ports: SpoolPorts) {
    this.directory = directory;
    this.#ports = ports;
  }

  /** Opens the queue of a directory, which is made. Of a queue with a damaged file nothing behind it is left: see `refuse`. */
  static async open(directory: string, ports: SpoolPorts): Promise<{ readonly spool: Spool; readonly damage?: Error }> {
    const { files } = ports;
    await files.makeDirectory(directory);
    const spool = new Spool(directory, ports);
    const names = (await files.list(directory)).map(({ name }) => name);
    for (const name of names) if (name.startsWith('staging-')) await files.remove(join(directory, name));
    const numbers = names.flatMap((name) => WRITE_NAME.exec(name)?.[1] ?? []).map(Number);
    let damage: Error | undefined;
    for (const number of numbers) {
      try {
        spool.#insert(await spool.#load(number));
      } catch (error) {
        if (!isBlockferryError(error, 'GATEWAY_CACHE')) throw error;
        damage = error;
        await spool.#moveAway(numbers.filter((other) => other >= number));
        break;
      }
    }
    spool.#next = Math.max(0, ...numbers) + 1;
    return damage ? { spool, damage } : { spool };
  }

  /** Oldest first. */
  get queue(): readonly QueuedWrite[] {
    return this.#queue;
  }

  /** Bytes of files that wait. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** With those of objects in the making. */
  get usedBytes(): number {
    return this.#queuedBytes + this.#stagedBytes;
  }

  /** So many bytes of objects in the making came, or went. */
  noteStaged(bytes: number): void {
    this.#stagedBytes += bytes;
  }

  /** Number of the newest write that waits, 0 if none does. */
  get lastNumber(): number {
    return this.#queue.at(-1)?.number ?? 0;
  }

  get newestRoot(): QueuedWrite | undefined {
    return this.#queue.findLast(({ entry }) => entry.kind === 'root');
  }

  /** The newest write of a key that waits. */
  find(key: string): QueuedWrite | undefined {
    return this.#queue.findLast(({ entry }) => entry.key === key);
  }

  /** Queues an object; durable when it resolves. `follows`: hash of the root before it, of a root. */
  async add(key: string, body: Uint8Array, follows?: Uint8Array): Promise<void> {
    const { files, clock } = this.#ports;
    const number = this.#takeNumber();
    const header = { key, acceptedMs: clock.nowMs(), ...(follows ? { follows } : {}) };
    await files.replace(this.#pathOf(number), encodeFile({ ...header, kind: follows ? 'root' : 'object' }, body));
    this.#insert(await this.#load(number));
    await this.#ports.failpoint('gateway.after-queue');
  }

  /** Queues a file of this format that lies in the directory, durable and closed, by giving it its name. */
  async adopt(path: string): Promise<void> {
    const { files, failpoint } = this.#ports;
    const number = this.#takeNumber();
    await failpoint('gateway.after-staging');
    await files.rename(path, this.#pathOf(number));
    await files.syncDirectory(this.directory);
    this.#insert(await this.#load(number));
    await failpoint('gateway.after-queue');
  }

  /** A file for a large object in the making. */
  stagingPath(id: string): string {
    return join(this.directory, `staging-${id}`);
  }

  /** The write is at the store. What it was stays as what was seen there, of a root. */
  async settled(write: QueuedWrite): Promise<void> {
    const { files } = this.#ports;
    if (write.entry.kind === 'root') await files.rename(write.path, this.#seenPath(write.entry.key));
    else await files.remove(write.path);
    // Before the next write goes out: a root that comes back to the queue would be one that the store has gone beyond.
    await files.syncDirectory(this.directory);
    this.#drop(write);
  }

  /** Takes the whole queue away and keeps it aside, for a person. Returns where. */
  async refuse(): Promise<string> {
    const directory = await this.#moveAway(this.#queue.map(({ number }) => number));
    this.#queue = [];
    this.#queuedBytes = 0;
    return directory;
  }

  /** Where queues lie that were refused. */
  async refused(): Promise<readonly string[]> {
    const entries = await this.#ports.files.list(this.directory);
    return entries
      .filter(({ name, kind }) => kind === 'directory' && name.startsWith('refused-'))
      .map(({ name }) => join(this.directory, name));
  }

  /** Runs `work` with the pieces of a write at hand. */
  async withPieces<T>(
    { path, entry }: QueuedWrite,
    work: (piece: (index: number) => Promise<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    return await this.#withFile(path, (file) => work((index) => readPiece(file, entry, index)));
  }

  /** Bytes of the body of a write; the range lies in it. */
  async read(write: QueuedWrite, offset: number, lengthBytes: number): Promise<Uint8Array> {
    const { pieceBytes } = write.entry;
    const into = Buffer.allocUnsafeSlow(lengthBytes);
    await this.withPieces(write, async (piece) => {
      const end = offset + lengthBytes;
      for (let index = Math.floor(offset / pieceBytes); index * pieceBytes < end; index += 1) {
        const at = index * pieceBytes;
        const bytes = (await piece(index)).subarray(Math.max(0, offset - at), end - at);
        into.set(bytes, Math.max(0, at - offset));
      }
    });
    return into;
  }

  /** An object as it was last seen at the store; undefined if it never was, or what was kept is damaged. */
  async seen(key: string): Promise<Uint8Array | undefined> {
    const path = this.#seenPath(key);
    if (!(await this.#ports.files.exists(path))) return undefined;
    try {
      return await this.#withFile(path, async (file) => {
        const entry = await readEntry(file);
        return await this.read({ number: 0, path, entry }, 0, entry.bodyBytes);
      });
    } catch (error) {
      if (isBlockferryError(error, 'GATEWAY_CACHE')) return undefined;
      throw error;
    }
  }

  /** Keeps what was seen at the store; undefined: it is not there. */
  async noteSeen(key: string, body: Uint8Array | undefined): Promise<void> {
    const { files, clock } = this.#ports;
    const path = this.#seenPath(key);
    if (body) await files.replace(path, encodeFile({ kind: 'object', key, acceptedMs: clock.nowMs() }, body));
    else await files.remove(path);
  }

  async #load(number: number): Promise<QueuedWrite> {
    const path = this.#pathOf(number);
    return await this.#withFile(path, async (file) => {
      const entry = await readEntry(file);
      if (entry.kind !== 'root') return { number, path, entry };
      const write = { number, path, entry };
      return { ...write, hash: sha256(await this.read(write, 0, entry.bodyBytes)) };
    });
  }

  async #withFile<T>(path: string, work: (file: RandomAccessFile) => Promise<T>): Promise<T> {
    const file = await this.#ports.files.open(path, 'read');
    try {
      return await work(file);
    } finally {
      await file.close();
    }
  }

  #insert(write: QueuedWrite): void {
    this.#queue.push(write);
    this.#queue.sort((a, b) => a.number - b.number);
    this.#queuedBytes += sizeOf(write);
  }

  #drop(write: QueuedWrite): void {
    if (!this.#queue.includes(write)) return;
    this.#queue = this.#queue.filter((other) => other !== write);
    this.#queuedBytes -= sizeOf(write);
  }

  /** The last first. */
  async #moveAway(numbers: readonly number[]): Promise<string> {
    const { files, clock } = this.#ports;
    const directory = join(this.directory, `refused-${clock.nowMs()}`);
    await files.makeDirectory(directory);
    for (const number of [...numbers].sort((a, b) => b - a)) {
      await files.rename(this.#pathOf(number), join(directory, nameOf(number)));
    }
    await files.syncDirectory(directory);
    await files.syncDirectory(this.directory);
    return directory;
  }

  #takeNumber(): number {
    this.#next += 1;
    return this.#next - 1;
  }

  #pathOf(number: number): string {
    return join(this.directory, nameOf(number));
  }

  #seenPath(key: string): string {
    return join(this.directory, `seen-${key}`);
  }
}

function nameOf(number: number): string {
  return `${String(number).padStart(NUMBER_DIGITS, '0')}.write`;
}

function sizeOf({ entry }: QueuedWrite): number {
  return SPOOL_HEADER_BYTES + entry.bodyBytes + entry.table.byteLength;
}
