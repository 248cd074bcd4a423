/** The door of the transport: what other rooms may use of it. */
export { type OpenStoreOptions, openStore, type StoreEnvironment } from './open-store.ts';
export type {
  ByteRange,
  CallOptions,
  PageBlob,
  PageBlobState,
  RangesOptions,
  ReadOptions,
  Store,
  StoredObject,
  WriteGuard,
} from './store.ts';
