/**
 * The public API: everything an embedding program or the command line needs, by name. What is not here is internal.
 */
export type {
  DiskSyncReport,
  FailoverReport,
  FailoverRequest,
  ItemEvent,
  ItemStatus,
  KeyInfo,
  KeySource,
  PointInfo,
  ProtectRequest,
  ReplicaReference,
  ResyncEstimate,
  ResyncRequest,
  Session,
  SyncReport,
  VerifyReport,
  VerifyRequest,
} from './agent/index.ts';
export { formatSize, parseSize } from './bytes.ts';
export {
  type Compression,
  checkChunkBytes,
  FINGERPRINT_ALGORITHMS,
  type FingerprintAlgorithm,
} from './chunker/index.ts';
export {
  abortedError,
  BlockferryError,
  ERROR_CODES,
  type ErrorArea,
  type ErrorCode,
  type ErrorDetails,
  type Fact,
  fromWire,
  isBlockferryError,
  toWire,
  type WireError,
} from './errors.ts';
export { nodePorts, parseFailpoints } from './host/index.ts';
export {
  addKey,
  estimateResync,
  failover,
  listKeys,
  points,
  protect,
  removeKey,
  resync,
  rotateKey,
  status,
  verify,
} from './operations.ts';
export type {
  Clock,
  DirectoryEntry,
  Failpoint,
  FailpointName,
  FileStamp,
  FileSystem,
  Ports,
  Random,
  RandomAccessFile,
  WriteOptions,
} from './ports.ts';
export type { Layout } from './replica/index.ts';
export { generateKeyFile, parseKeyFile } from './replica/key-file.ts';
export {
  type ByteSink,
  type ChunkDigest,
  type ConvertReport,
  convertDisk,
  type DigestOptions,
  type DiskDigest,
  digestDisk,
  type MapEntry,
  mapDisk,
  streamDisk,
  type ToolOptions,
  type ToolProgress,
} from './tools/index.ts';
export {
  type CheckDiskOptions,
  type CreateDiskOptions,
  checkDisk,
  createDisk,
  type DiskCheck,
  type DiskFault,
  type DiskFormat,
  type DiskInfo,
  type DiskSubformat,
  type DiskWriter,
  type Extent,
  type FileRange,
  type OpenDiskOptions,
  type OpenForWritingOptions,
  openDisk,
  openDiskForWriting,
  type VirtualDisk,
  type WritableDisk,
  type ZeroOptions,
} from './vhd/index.ts';
