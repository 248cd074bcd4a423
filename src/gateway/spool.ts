/**
 * The durable queue of one replica: what clients wrote and the gateway answered for, in the order in which it has to reach the store.
 *
 *     place               which replica it is of
 *     epoch               changes when something that was answered for will not reach the store
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
import { isErrno } from '../transport/index.ts';
import { encodeFile, readEntry, readPiece, SPOOL_HEADER_BYTES, type SpoolEntry, sha256 } from './spool-file.ts';

export type SpoolPorts = Pick<Ports, 'clock' | 'files' | 'failpoint' | 'random'>;

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
const EPOCH_FILE = 'epoch';
const EPOCH_BYTES = 8;
const EPOCH = /^[0-9a-f]{16}$/;

export class Spool {
  readonly directory: string;
  readonly #ports: SpoolPorts;
  /** By number. */
  #queue: QueuedWrite[] = [];
  #next = 1;
  #queuedBytes = 0;
  #stagedBytes = 0;
  #epoch = '';
  /** Writes that are getting their names. */
  readonly #entering: Set<Promise<void>> = new Set();
  /** Of what was seen there is one file a key, whoever changes it. */
  #seeing: Promise<unknown> = Promise.resolve();
  /** A write that was not answered for, and could not be taken away. */
  #broken: unknown;

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
    await spool.#loadEpoch();
    for (const name of names) if (name.startsWith('staging-')) await files.remove(join(directory, name));
    const numbers = names.flatMap((name) => WRITE_NAME.exec(name)?.[1] ?? []).map(Number);
    let damage: Error | undefined;
    for (const number of numbers) {
      try {
        spool.#insert(await spool.#load(number));
      } catch (error) {
        if (!isBlockferryError(error, 'GATEWAY_CACHE')) throw error;
        damage = error;
        await spool.#beginEpoch();
        await spool.#moveAway(numbers.filter((other) => other >= number));
        break;
      }
    }
    spool.#next = Math.max(0, ...numbers) + 1;
    return damage ? { spool, damage } : { spool };
  }

  /**
   * Part of every etag of a root. A queue that was refused, or lost with its directory, may have held logs that a root names which is
   * still on its way here; whoever knows the replica from before has to look at it again.
   */
  get epoch(): string {
    return this.#epoch;
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
  add(key: string, body: Uint8Array, follows?: Uint8Array): Promise<void> {
    const { files, clock } = this.#ports;
    const header = { key, acceptedMs: clock.nowMs(), ...(follows ? { follows } : {}) };
    const file = encodeFile({ ...header, kind: follows ? 'root' : 'object' }, body);
    return this.#enter((path) => files.replace(path, file));
  }

  /** Queues a file of this format that lies in the directory, durable and closed, by giving it its name. */
  adopt(path: string): Promise<void> {
    const { files, failpoint } = this.#ports;
    return this.#enter(async (named) => {
      await failpoint('gateway.after-staging');
      await files.rename(path, named);
      await files.syncDirectory(this.directory);
    });
  }

  /** A file for a large object in the making. */
  stagingPath(id: string): string {
    return join(this.directory, `staging-${id}`);
  }

  /** The write is at the store. What it was stays as what was seen there, of a root. Safe to repeat. */
  async settled(write: QueuedWrite): Promise<void> {
    const { files } = this.#ports;
    await this.#inSeeingTurn(async () => {
      if (write.entry.kind === 'object') await files.remove(write.path);
      else if (await files.exists(write.path)) await files.rename(write.path, this.#seenPath(write.entry.key));
    });
    // Before the next write goes out: a root that comes back to the queue would be one that the store has gone beyond.
    await files.syncDirectory(this.directory);
    this.#drop(write);
  }

  /** Takes the whole queue away and keeps it aside, for a person. Returns where. Safe to repeat. */
  async refuse(): Promise<string> {
    const last = this.#next - 1;
    await this.#beginEpoch();
    // What was let in before goes too; what came since is of somebody who has looked again.
    await Promise.allSettled([...this.#entering]);
    const refused = this.#queue.filter(({ number }) => number <= last);
    const directory = await this.#moveAway(refused.map(({ number }) => number));
    for (const write of refused) this.#drop(write);
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

  /** Whether an object was ever seen at the store. */
  hasSeen(key: string): Promise<boolean> {
    return this.#ports.files.exists(this.#seenPath(key));
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

  /** Keeps what was seen at the store, if it still is what is there; undefined: nothing is. */
  noteSeen(key: string, body: Uint8Array | undefined, isCurrent: () => boolean): Promise<boolean> {
    const { files, clock } = this.#ports;
    const path = this.#seenPath(key);
    return this.#inSeeingTurn(async () => {
      if (!isCurrent()) return false;
      if (body) await files.replace(path, encodeFile({ kind: 'object', key, acceptedMs: clock.nowMs() }, body));
      else await files.remove(path);
      return true;
    });
  }

  #inSeeingTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#seeing.then(work);
    this.#seeing = done.catch(() => {});
    return done;
  }

  async #loadEpoch(): Promise<void> {
    const bytes = await this.#ports.files.readSmall(join(this.directory, EPOCH_FILE), 2 * EPOCH_BYTES);
    const epoch = Buffer.from(bytes ?? []).toString('latin1');
    if (EPOCH.test(epoch)) this.#epoch = epoch;
    else await this.#beginEpoch();
  }

  /** In force at once, and durable before anything is taken away. */
  async #beginEpoch(): Promise<void> {
    const { files, random } = this.#ports;
    this.#epoch = Buffer.from(random.bytes(EPOCH_BYTES)).toString('hex');
    await files.replace(join(this.directory, EPOCH_FILE), Buffer.from(this.#epoch));
  }

  /** Takes a write into the queue that `give` gives its name. One that fails leaves nothing that a later start would find. */
  #enter(give: (path: string) => Promise<void>): Promise<void> {
    const entering = this.#enterNow(give).finally(() => this.#entering.delete(entering));
    this.#entering.add(entering);
    return entering;
  }

  async #enterNow(give: (path: string) => Promise<void>): Promise<void> {
    const { files, failpoint } = this.#ports;
    if (this.#broken !== undefined) throw this.#broken;
    const number = this.#takeNumber();
    const path = this.#pathOf(number);
    try {
      await give(path);
      this.#insert(await this.#load(number));
    } catch (error) {
      await files.remove(path).catch(() => {
        this.#broken = error;
      });
      throw error;
    }
    await failpoint('gateway.after-queue');
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
      await files.rename(this.#pathOf(number), join(directory, nameOf(number))).catch((error: unknown) => {
        if (!isErrno(error, 'ENOENT')) throw error;
      });
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
