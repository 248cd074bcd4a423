/**
 * The pool of worker threads, over Piscina. A worker reads and writes files itself, by descriptor: source bytes
 * never cross a thread. Batches may finish in any order; the caller keeps the order it needs.
 */
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { abortedError, fromWire, throwIfAborted } from '../errors.ts';
import type {
  FoldTask,
  OpenFrameResult,
  OpenFrameTask,
  OpenResult,
  OpenTask,
  Results,
  ScanResult,
  ScanTask,
  SealFrameResult,
  SealFrameTask,
  Task,
  TaskFailure,
  WorkerSetup,
} from './protocol.ts';

/** Worker threads unless told otherwise: more than this only fights over memory bandwidth. */
const THREADS_DEFAULT_MAX = 8;

export interface WorkerPoolOptions {
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class WorkerPool {
  readonly threads: number;
  readonly #piscina: Piscina<Task, Results[keyof Results] | TaskFailure>;
  readonly #signal: AbortSignal | undefined;
  /** Threads that have not said yet that they are loaded, with the promise that they do or end. */
  readonly #loading: Map<Worker, Promise<void>> = new Map();
  /** Ids of threads that came later, and are loaded. */
  readonly #loaded: Set<number> = new Set();

  constructor(setup: WorkerSetup, options: WorkerPoolOptions = {}) {
    this.threads = options.threads ?? Math.min(availableParallelism(), THREADS_DEFAULT_MAX);
    this.#signal = options.signal;
    this.#piscina = new Piscina({
      filename: fileURLToPath(new URL('./thread.js', import.meta.url)),
      name: 'run',
      workerData: setup,
      // The first loads while the caller plans, the others when there is work for them: a short run needs no more than one.
      minThreads: 1,
      maxThreads: this.threads,
      concurrentTasksPerWorker: 1,
      idleTimeout: Number.POSITIVE_INFINITY,
      recordTiming: false,
      // Waiting in Atomics would keep a worker from its event loop, where native buffers that were collected are freed:
      // LZ4 outputs would pile up by hundreds of MiB.
      atomics: 'disabled',
      // Workers keep next to nothing on the heap; a small young generation is collected often, and with it native buffers.
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
      env: {},
      execArgv: [],
    });
    for (const thread of this.#piscina.threads) this.#loading.set(thread, this.#whenLoaded(thread));
    // Of the first it says nothing: that one counts as made before it has loaded.
    this.#piscina.on('workerCreate', ({ id }: { readonly id: number }) => this.#loaded.add(id));
  }

  /** Transfers `task.buffer`; the result brings it back. */
  scan(task: ScanTask): Promise<ScanResult> {
    return this.#run(task);
  }

  /** Transfers `task.buffer`; the result brings it back. */
  open(task: OpenTask): Promise<OpenResult> {
    return this.#run(task);
  }

  /** Transfers `task.buffer`; the result brings it back. */
  fold(task: FoldTask): Promise<ScanResult> {
    return this.#run(task);
  }

  /** Transfers `task.buffer`; the result brings it back. */
  sealFrame(task: SealFrameTask): Promise<SealFrameResult> {
    return this.#run(task);
  }

  /** Transfers `task.buffer`; the result brings it back. @throws REPLICA_LOG, and the buffer is gone */
  openFrame(task: OpenFrameTask): Promise<OpenFrameResult> {
    return this.#run(task);
  }

  /** Ends the threads; batches under way are dropped. */
  async close(): Promise<void> {
    // Node 20 aborts the process when a thread is ended while it loads a module ("IsGraphAsync must be used on an
    // instantiated module"); and an unreferenced thread would not keep the process alive until it has loaded.
    for (const thread of this.#piscina.threads) {
      if (this.#loading.has(thread) || this.#loaded.has(thread.threadId)) continue;
      this.#loading.set(thread, this.#whenLoaded(thread));
    }
    for (const thread of this.#loading.keys()) thread.ref();
    await Promise.all(this.#loading.values());
    await this.#piscina.destroy();
  }

  /** Resolves with the first message of a thread, which says that it is loaded, or with its end. */
  #whenLoaded(thread: Worker): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#loading.delete(thread);
        resolve();
      };
      thread.once('message', done);
      thread.once('exit', done);
    });
  }

  async #run<K extends keyof Results>(task: Task & { readonly kind: K }): Promise<Results[K]> {
    throwIfAborted(this.#signal);
    const result = await this.#piscina.run(task, { transferList: [task.buffer] });
    if (this.#signal?.aborted) throw abortedError(this.#signal);
    if ('error' in result) throw fromWire(result.error);
    return result as Results[K];
  }
}
