/**
 * The chunker: pure functions over bytes. A chunk of a disk goes in; its fingerprint, its sealed slot and its manifest
 * entry come out, and back. No file, no socket, no clock, no thread; randomness is passed in.
 */
export { chunkMemory } from './chunk-memory.ts';
export {
  COMPRESSION_CODES,
  type Codec,
  type Compression,
  createCodec,
  decompress,
} from './codec.ts';
export { CRC64_BYTES, crc64, joinCrc64 } from './crc64.ts';
export {
  createFingerprinter,
  FINGERPRINT_ALGORITHMS,
  FINGERPRINT_BYTES,
  type FingerprintAlgorithm,
  type Fingerprinter,
} from './fingerprint.ts';
export {
  checkChunkBytes,
  checkGeometry,
  chunkCount,
  chunkLengthBytes,
  type DiskGeometry,
  ENTRIES_PER_PAGE,
  ENTRY_BYTES,
  manifestBlobBytes,
  manifestPageCount,
  PAGE_BYTES,
  PAGE_PLAINTEXT_BYTES,
  type PageCopy,
  type PageKind,
  paddedSlotBytes,
  pagePlace,
  REFERENCE_BYTES,
  REFERENCES_PER_TABLE,
  SEGMENT_HEAD_BYTES,
  type SlotPlace,
  segmentCount,
  segmentSizeBytes,
  slotPlace,
  slotSizeBytes,
  slotsPerSegment,
  TAG_BYTES,
  tablePageCount,
} from './geometry.ts';
export { ChunkKernel, type KernelSetup, type Scanned, type Verdict } from './kernel.ts';
export {
  deriveEpochKeys,
  deriveKey,
  deriveReplicaKeys,
  type EpochKeys,
  type EpochPurpose,
  KEY_BYTES,
  type ReplicaKeys,
  type ReplicaPurpose,
} from './keys.ts';
export {
  LOG_FRAME_BYTES_MAX,
  LOG_FRAME_HEADER_BYTES,
  LOG_ZEROS_BYTES_MAX,
  LogFrameBuilder,
  LogFrameCipher,
  type LogIdentity,
  LogOrder,
  type LogPiece,
  logFault,
  logFrameBytes,
} from './log-frame.ts';
export {
  entriesOfPage,
  entryAt,
  hasFingerprint,
  isZeroEntry,
  type ManifestEntry,
  type PageReference,
  readEntry,
  readReference,
  writeEntry,
  writeReference,
} from './manifest-entry.ts';
export { PageCipher } from './manifest-page.ts';
export { ID_BYTES, type SealingContext } from './record.ts';
export { type SealedSlot, SlotCipher, slotTag } from './slot.ts';
export { NONCE_BYTES, XaesKey } from './xaes.ts';
export { isZero } from './zero.ts';
