/**
 * What takes the queue of one replica to its store: the writes in their order, each until it is there.
 *
 * Every step may be repeated: an object is the same bytes under the same key, and a root is put on the root that it follows. Whether a
 * root whose answer was lost, or whose process was killed, is there is found out by comparing what the store has. A root that the store
 * cannot take, because somebody else committed, ends the queue: what is behind it is refused with it.
 */
import { bytesEqual } from '../bytes.ts';
import { BlockferryError, isBlockferryError } from '../errors.ts';
import { ROOT_BYTES_MAX } from '../limits.ts';
import type { Clock } from '../ports.ts';
import { isErrno, type Lanes, type Retry, RetryingStore, type StagedObject, type Store } from '../transport/index.ts';
import type { QueuedWrite, Spool, SpoolPorts } from './spool.ts';
import { sha256 } from './spool-file.ts';

/** What an upload may use of the line. */
export type MakeLanes = () => Lanes;

export interface UploadFailure {
  readonly code: string;
  readonly message: string;
  readonly sinceMs: number;
}

export interface UploaderOptions {
  readonly store: Store;
  readonly spool: Spool;
  readonly retry: Retry;
  readonly lanes: MakeLanes;
  readonly ports: SpoolPorts;
  /** The root that is at the store now. */
  readonly onRoot: (bytes: Uint8Array, etag: string) => void;
  /** The store answered, well or with a refusal. */
  readonly onAnswered: () => void;
  readonly onSent: (bytes: number, elapsedMs: number) => void;
  readonly onFailure: (failure: UploadFailure) => void;
  readonly onRefused: (directory: string, reason: string) => void;
}

const FIRST_WAIT_MS = 1_000;
const WAIT_MS_MAX = 30_000;
/** Small enough that a failed part costs little, large enough to fill a line. */
const PARTS_AT_ONCE = 4;

interface Waiter {
  readonly number: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class Uploader {
  readonly #options: UploaderOptions;
  readonly #store: RetryingStore;
  readonly #stop: AbortController = new AbortController();
  #waiters: Waiter[] = [];
  #running: Promise<void> = Promise.resolve();
  #isRunning = false;
  #failure: UploadFailure | undefined;
  #movedMs: number | undefined;

  constructor(options: UploaderOptions) {
    this.#options = options;
    this.#store = new RetryingStore(options.store, options.retry);
  }

  /** Why nothing gets through right now. */
  get failure(): UploadFailure | undefined {
    return this.#failure;
  }

  /** When something of the queue last got through. */
  get movedMs(): number | undefined {
    return this.#movedMs;
  }

  /** Something was queued. */
  wake(): void {
    if (this.#isRunning || this.#stop.signal.aborted || this.#options.spool.queue.length === 0) return;
    this.#isRunning = true;
    this.#running = this.#run();
  }

  /** Resolves when all that is queued now is at the store. @throws STORE_THROTTLED when that takes too long, STORE_CONDITION if it was refused */
  async drained(waitMs: number): Promise<void> {
    const { spool, ports } = this.#options;
    const number = spool.lastNumber;
    if (number === 0) return;
    this.#stop.signal.throwIfAborted();
    if (this.#failure) throw waiting(spool.queue.length, this.#failure);
    const ended = new AbortController();
    let waiter: Waiter | undefined;
    const there = new Promise<void>((resolve, reject) => {
      waiter = { number, resolve, reject };
      this.#waiters.push(waiter);
    });
    this.wake();
    const late = ports.clock.sleep(waitMs, ended.signal).then(
      () => {
        throw waiting(spool.queue.length, this.#failure);
      },
      () => new Promise<never>(() => {}),
    );
    try {
      await Promise.race([there, late]);
    } finally {
      ended.abort();
      this.#waiters = this.#waiters.filter((each) => each !== waiter);
    }
  }

  /** Ends what is under way; what is queued stays. */
  async close(): Promise<void> {
    const ended = new BlockferryError('ABORTED', 'the gateway ends');
    this.#stop.abort(ended);
    for (const { reject } of this.#waiters.splice(0)) reject(ended);
    await this.#running;
  }

  async #run(): Promise<void> {
    const { spool, ports } = this.#options;
    const { signal } = this.#stop;
    /** Is at the store, and could not be taken off the queue. */
    let there: QueuedWrite | undefined;
    for (let waitMs = FIRST_WAIT_MS; ; ) {
      const [write] = spool.queue;
      if (!write || signal.aborted) break;
      try {
        if (there !== write) await this.#upload(write, signal);
        there = write;
        this.#options.onAnswered();
        await ports.failpoint('gateway.after-upload');
        await spool.settled(write);
        this.#failure = undefined;
        waitMs = FIRST_WAIT_MS;
        this.#tellWaiters();
      } catch (error) {
        if (signal.aborted) break;
        if (isRefusal(error) && (await this.#refuse(error, ports.clock))) continue;
        if (!isRefusal(error)) this.#fail(error, ports.clock);
        await ports.clock.sleep(waitMs, signal).catch(() => {});
        waitMs = Math.min(WAIT_MS_MAX, waitMs * 2);
      }
    }
    this.#isRunning = false;
    this.wake();
  }

  async #upload(write: QueuedWrite, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options.ports;
    const startedMs = clock.monotonicMs();
    if (write.entry.kind === 'root') await this.#uploadRoot(write, signal);
    else await this.#uploadObject(write, signal);
    this.#options.onSent(write.entry.bodyBytes, clock.monotonicMs() - startedMs);
  }

  async #uploadObject(write: QueuedWrite, signal: AbortSignal): Promise<void> {
    const { spool } = this.#options;
    const { key, pieceBytes, bodyBytes } = write.entry;
    const pieces = Math.ceil(bodyBytes / pieceBytes);
    if (pieces <= 1) {
      await this.#send(bodyBytes, async () =>
        this.#store.put(key, await spool.read(write, 0, bodyBytes).catch(asDamage), { signal }),
      );
      return;
    }
    const staged = this.#store.stage(key, pieceBytes);
    try {
      await spool.withPieces(write, (piece) => this.#sendParts(staged, piece, write, signal)).catch(asDamage);
      await staged.commit(pieces, { signal });
    } catch (error) {
      // The next try begins another one. Nobody waits for this: the store may be away for long.
      staged.abort().catch(() => {});
      throw error;
    }
  }

  async #sendParts(
    staged: StagedObject,
    piece: (index: number) => Promise<Uint8Array>,
    { entry: { pieceBytes, bodyBytes } }: QueuedWrite,
    signal: AbortSignal,
  ): Promise<void> {
    const pieces = Math.ceil(bodyBytes / pieceBytes);
    let next = 0;
    const send = async (): Promise<void> => {
      while (next < pieces) {
        const index = next;
        next += 1;
        const lengthBytes = Math.min(pieceBytes, bodyBytes - index * pieceBytes);
        await this.#send(lengthBytes, async () => staged.put(index, await piece(index), { signal }));
      }
    };
    const sending = await Promise.allSettled(Array.from({ length: PARTS_AT_ONCE }, send));
    for (const result of sending) if (result.status === 'rejected') throw result.reason;
  }

  async #uploadRoot(write: QueuedWrite, signal: AbortSignal): Promise<void> {
    const { spool, onRoot } = this.#options;
    const { key, bodyBytes, follows } = write.entry;
    const there = await this.#store.get(key, ROOT_BYTES_MAX, { signal });
    const bytes = await spool.read(write, 0, bodyBytes).catch(asDamage);
    if (there && bytesEqual(sha256(there.bytes), write.hash!)) return onRoot(bytes, there.etag);
    if (!there || !bytesEqual(sha256(there.bytes), follows!)) throw overtaken(key);
    onRoot(bytes, await this.#send(bodyBytes, () => this.#store.put(key, bytes, { ifMatch: there.etag, signal })));
  }

  /** Bytes are fetched when the line has room for them: of a hundred replicas that wait, none holds any. */
  async #send<T>(lengthBytes: number, call: () => Promise<T>): Promise<T> {
    const result = await this.#options.lanes().run(lengthBytes, call, { signal: this.#stop.signal });
    this.#movedMs = this.#options.ports.clock.nowMs();
    return result;
  }

  /** Whether it is done: what cannot be moved aside is tried again. */
  async #refuse(error: BlockferryError, clock: Clock): Promise<boolean> {
    const { spool, onAnswered, onRefused } = this.#options;
    onAnswered();
    try {
      onRefused(await spool.refuse(), error.message);
    } catch (cause) {
      this.#fail(cause, clock);
      return false;
    }
    this.#failure = undefined;
    for (const { reject } of this.#waiters.splice(0)) reject(error);
    return true;
  }

  #fail(error: unknown, clock: Clock): void {
    const { code, message } = isBlockferryError(error)
      ? error
      : { code: 'UNEXPECTED', message: error instanceof Error ? error.message : String(error) };
    this.#failure = { code, message, sinceMs: this.#failure?.sinceMs ?? clock.nowMs() };
    this.#options.onFailure(this.#failure);
    const told = waiting(this.#options.spool.queue.length, this.#failure);
    for (const { reject } of this.#waiters.splice(0)) reject(told);
  }

  #tellWaiters(): void {
    const [first] = this.#options.spool.queue;
    const isThere = ({ number }: Waiter): boolean => first === undefined || first.number > number;
    for (const { resolve } of this.#waiters.filter(isThere)) resolve();
    this.#waiters = this.#waiters.filter((waiter) => !isThere(waiter));
  }
}

const FOLLOWS = 'a root is put on the one that it follows';

/**
 * What no repetition mends: somebody else's root, or a file of ours that is not what it was. Any other condition that did not hold is
 * looked at again: a put of ours may have arrived late, or a staging of ours was committed after all.
 */
function isRefusal(error: unknown): error is BlockferryError {
  if (isBlockferryError(error, 'GATEWAY_CACHE')) return true;
  return isBlockferryError(error, 'STORE_CONDITION') && error.facts['rule'] === FOLLOWS;
}

function overtaken(key: string): BlockferryError {
  return new BlockferryError('STORE_CONDITION', `${key}: another writer committed to this replica meanwhile`, {
    facts: { source: key, rule: FOLLOWS },
  });
}

/** A file of the queue that is gone is damage like any other. */
function asDamage(error: unknown): never {
  if (!isErrno(error, 'ENOENT')) throw error;
  throw new BlockferryError('GATEWAY_CACHE', `a file of the queue is gone: ${(error as Error).message}`, {
    cause: error,
    facts: { rule: 'what waits stays until it is at the store' },
  });
}

function waiting(writes: number, failure: UploadFailure | undefined): BlockferryError {
  const why = failure ? `: ${failure.message}` : '';
  return new BlockferryError('STORE_THROTTLED', `${writes} writes wait at the gateway for the store${why}`, {
    facts: { writes, retryAfterMs: 2_000 },
    retryable: true,
    hint: 'what comes behind a recovery point waits until that is at the store; see the status of the gateway',
  });
}
