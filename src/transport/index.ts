/** The door of the transport: what other rooms may use of it. */
export { Bandwidth } from './bandwidth.ts';
export type { CongestionReport } from './congestion.ts';
export { FencedBlob, type FencedBlobOptions } from './fenced-blob.ts';
export { isErrno, onFiles } from './folder-errors.ts';
export {
  ANSWER_HEADER,
  bodyCrc,
  CALL_HEADER,
  CRC_HEADER,
  encodeFailure,
  GATEWAY_PATH,
  type GatewayCall,
  type GatewayFields,
  IncomingCall,
} from './gateway-protocol.ts';
export { checkKey, checkKeyPrefix, isKey } from './keys.ts';
export { type LaneOptions, Lanes, type LanesOptions } from './lanes.ts';
export { type OpenStoreOptions, openStore, type StoreEnvironment, type StorePorts } from './open-store.ts';
export { mayStillApply } from './outcome.ts';
export { beyondEnd, checkObjectRead, checkObjectSize, tooLong } from './page-rules.ts';
export {
  FIRST_CONTACT_POLICY,
  RETRY_POLICY,
  Retry,
  type RetryEvent,
  type RetryOptions,
  type RetryPolicy,
} from './retry.ts';
export { RetryingStore } from './retrying-store.ts';
export { SharedBandwidth } from './shared-bandwidth.ts';
export { StagedParts } from './staged-parts.ts';
export type {
  ByteRange,
  CallOptions,
  ObjectReadOptions,
  PageBlob,
  PageBlobState,
  PutOptions,
  RangesOptions,
  ReadOptions,
  StagedObject,
  Store,
  StoredObject,
  WriteGuard,
  WriteOptions,
} from './store.ts';
