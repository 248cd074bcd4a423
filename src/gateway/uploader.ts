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
import { type Lanes, type Retry, RetryingStore, type Store } from '../transport/index.ts';
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

  constructor(options: UploaderOptions) {
    this.#options = options;
    this.#store = new RetryingStore(options.store, options.retry);
  }

  /** Why nothing gets through right now. */
  get failure(): UploadFailure | undefined {
    return this.#failure;
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
    this.#stop.abort(new BlockferryError('ABORTED', 'the gateway ends'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { spool, ports } = this.#options;
    const { signal } = this.#stop;
    for (let waitMs = FIRST_WAIT_MS; ; ) {
      const [write] = spool.queue;
      if (!write || signal.aborted) break;
      try {
        await this.#upload(write, signal);
        this.#options.onAnswered();
        await ports.failpoint('gateway.after-upload');
        await spool.settled(write);
        this.#failure = undefined;
        waitMs = FIRST_WAIT_MS;
        this.#tellWaiters();
      } catch (error) {
        if (signal.aborted) break;
        if (isRefusal(error)) {
          await this.#refuse(error);
          continue;
        }
        this.#fail(error, ports.clock);
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
    const { spool, lanes } = this.#options;
    const { key, pieceBytes, bodyBytes } = write.entry;
    const lane = lanes();
    const pieces = Math.ceil(bodyBytes / pieceBytes);
    if (pieces <= 1) {
      const bytes = await spool.read(write, 0, bodyBytes);
      await lane.run(bodyBytes, () => this.#store.put(key, bytes, { signal }), { signal });
      return;
    }
    const staged = this.#store.stage(key, pieceBytes);
    await spool.withPieces(write, async (piece) => {
      let next = 0;
      const send = async (): Promise<void> => {
        while (next < pieces) {
          const index = next;
          next += 1;
          const bytes = await piece(index);
          await lane.run(bytes.byteLength, () => staged.put(index, bytes, { signal }), { signal });
        }
      };
      const sending = await Promise.allSettled(Array.from({ length: PARTS_AT_ONCE }, send));
      for (const result of sending) if (result.status === 'rejected') throw result.reason;
    });
    await staged.commit(pieces, { signal });
  }

  async #uploadRoot(write: QueuedWrite, signal: AbortSignal): Promise<void> {
    const { spool, lanes, onRoot } = this.#options;
    const { key, bodyBytes, follows } = write.entry;
    const there = await this.#store.get(key, ROOT_BYTES_MAX, { signal });
    const bytes = await spool.read(write, 0, bodyBytes);
    if (there && bytesEqual(sha256(there.bytes), write.hash!)) return onRoot(bytes, there.etag);
    if (!there || !bytesEqual(sha256(there.bytes), follows!)) throw overtaken(key);
    const put = (): Promise<string> => this.#store.put(key, bytes, { ifMatch: there.etag, signal });
    onRoot(bytes, await lanes().run(bodyBytes, put, { signal }));
  }

  async #refuse(error: BlockferryError): Promise<void> {
    const { spool, onAnswered, onRefused } = this.#options;
    onAnswered();
    onRefused(await spool.refuse(), error.message);
    this.#failure = undefined;
    for (const { reject } of this.#waiters.splice(0)) reject(error);
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

/** What no repetition mends: somebody else's root, or a file of ours that is not what it was. */
function isRefusal(error: unknown): error is BlockferryError {
  return isBlockferryError(error, 'STORE_CONDITION', 'GATEWAY_CACHE');
}

function overtaken(key: string): BlockferryError {
  return new BlockferryError('STORE_CONDITION', `${key}: another writer committed to this replica meanwhile`, {
    facts: { source: key, rule: 'a root is put on the one that it follows' },
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
