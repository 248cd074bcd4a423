/** The door of the workers: a pool of threads that scan and open chunks, seal and open frames of logs, and the buffers they share with the caller. */
export { BufferPool } from './buffers.ts';
export { WorkerPool, type WorkerPoolOptions } from './pool.ts';
export {
  COVER_FIELDS,
  type FoldTask,
  type OpenFrameResult,
  type OpenFrameTask,
  type OpenResult,
  type OpenTask,
  PIECE_FIELDS,
  PIECE_SOURCE,
  RANGE_FIELDS,
  type ScanResult,
  type ScanTask,
  type SealFrameResult,
  type SealFrameTask,
  VERDICT,
  type WorkerDisk,
  type WorkerSetup,
} from './protocol.ts';
