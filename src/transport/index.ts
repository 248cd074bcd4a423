/** The door of the transport: what other rooms may use of it. */
export { Bandwidth } from './bandwidth.ts';
export type { CongestionReport } from './congestion.ts';
export { FencedBlob, type FencedBlobOptions } from './fenced-blob.ts';
export { checkKey, isKey } from './keys.ts';
export { type LaneOptions, Lanes, type LanesOptions } from './lanes.ts';
export { type OpenStoreOptions, openStore, type StoreEnvironment, type StorePorts } from './open-store.ts';
export { mayStillApply } from './outcome.ts';
export {
  FIRST_CONTACT_POLICY,
  RETRY_POLICY,
  Retry,
  type RetryEvent,
  type RetryOptions,
  type RetryPolicy,
} from './retry.ts';
export { RetryingStore } from './retrying-store.ts';
export type {
  ByteRange,
  CallOptions,
  ObjectReadOptions,
  PageBlob,
  PageBlobState,
  RangesOptions,
  ReadOptions,
  StagedObject,
  Store,
  StoredObject,
  WriteGuard,
} from './store.ts';
