/** The door of the workers: a pool of threads that scan and open chunks, and the buffers they share with the caller. */
export { BufferPool } from './buffers.ts';
export { WorkerPool, type WorkerPoolOptions } from './pool.ts';
export {
  COVER_FIELDS,
  type FoldTask,
  type OpenResult,
  type OpenTask,
  RANGE_FIELDS,
  type ScanResult,
  type ScanTask,
  VERDICT,
  type WorkerDisk,
  type WorkerSetup,
} from './protocol.ts';
