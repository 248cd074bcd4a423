/**
 * Store: where replicas live. One contract, one suite of tests, two implementations (Azure page blobs, a folder), either of which
 * may stand behind a gateway.
 *
 * A store makes ONE attempt per call and reports what happened as a typed error; retrying, pacing and fencing are
 * decorators above it. Keys are relative paths with `/` ([a-z0-9._-] segments, never `.` or `..`).
 *
 * Errors (BlockferryError codes), each with `retryable` set where the same call may succeed later:
 * STORE_UNREACHABLE, STORE_TIMEOUT (the write may still be applied later!), STORE_THROTTLED (fact `retryAfterMs` where
 * the service named one), STORE_REFUSED, STORE_NOT_FOUND, STORE_CONDITION (an etag or "must not exist" condition did
 * not hold), REPLICA_FENCED (the sequence number did not match), REPLICA_LEASED (another lease is active, or ours is
 * gone), STORE_AUTHENTICATION, STORE_CORRUPT_TRANSFER, STORE_FULL, ABORTED. The fact `mayStillApply` is true where
 * nobody knows whether a write took effect or will (a connection that broke after it was sent, HTTP 500).
 */

export interface CallOptions {
  readonly signal?: AbortSignal;
}

export interface WriteOptions extends CallOptions {
  /** CRC-64/NVME of the bytes, from whoever made them; a store that sends one makes it otherwise. */
  readonly crc64?: Uint8Array | undefined;
}

/** Reads of the live blob, or of a snapshot. */
export interface ReadOptions extends CallOptions {
  readonly snapshot?: string;
  /** As long as the read. A store that can reads to there and returns it; others return a buffer of their own. */
  readonly into?: Uint8Array;
}

/** Listing of ranges, the first of which may begin before `fromOffset` (a multiple of 512). */
export interface RangesOptions extends ReadOptions {
  readonly fromOffset?: number;
}

/** Reads of an object whose length is known from elsewhere. */
export interface ObjectReadOptions extends CallOptions {
  /** The length that the object must have: an object that was cut or that grew is a RangeError. */
  readonly sizeBytes?: number;
}

/** How an object is replaced. */
export interface PutOptions extends CallOptions {
  /** An etag, or null for "must not exist"; without it unconditional. */
  readonly ifMatch?: string | null;
  /**
   * Of a store that passes on what it gets (a gateway): it may answer as soon as it holds the bytes durably, though they are
   * not where they belong yet; `settled` tells. Others take no notice.
   */
  readonly early?: boolean;
}

export interface StoredObject {
  readonly bytes: Uint8Array;
  /** Changes with each replacement. */
  readonly etag: string;
}

/** What a page blob says of itself. */
export interface PageBlobState {
  readonly sizeBytes: number;
  readonly fence: number;
}

export interface ByteRange {
  readonly offset: number;
  readonly lengthBytes: number;
}

/** Conditions that a page write carries. */
export interface WriteGuard {
  /** The blob's sequence number must equal this when the write is applied, else REPLICA_FENCED. */
  readonly fence: number;
  /** Our lease, where the blob is leased. */
  readonly leaseId?: string;
}

/** A sparse array of bytes, changed in place in units of 512 bytes. */
export interface PageBlob {
  readonly key: string;
  /** Creates it, all zeros. @throws STORE_CONDITION if it exists. */
  create(sizeBytes: number, fence: number, options?: CallOptions): Promise<void>;
  /** undefined if it does not exist. */
  state(options?: CallOptions): Promise<PageBlobState | undefined>;
  /** Puts 1 … 4 MiB, both ends on 512, inside the blob, with a transport checksum. @throws RangeError otherwise. */
  write(bytes: Uint8Array, offset: number, guard: WriteGuard, options?: WriteOptions): Promise<void>;
  /** Makes [offset, offset + lengthBytes) zeros and frees it; any length, both ends on 512, inside the blob. */
  clear(offset: number, lengthBytes: number, guard: WriteGuard, options?: CallOptions): Promise<void>;
  /** Bytes of the live blob, or of a snapshot. @throws RangeError outside the blob. */
  read(offset: number, lengthBytes: number, options?: ReadOptions): Promise<Uint8Array>;
  /** Ranges that may hold data, ascending; what lies between them is zeros. */
  ranges(options?: RangesOptions): AsyncIterable<ByteRange>;
  /** Waits until all acknowledged writes are durable (a folder syncs; a page blob already is). */
  flush(options?: CallOptions): Promise<void>;
  /**
   * Freezes the content under a name of the store's choosing, if the fence still stands. Names ascend with time. No
   * write of the same session may be under way. A snapshot that another write crossed is STORE_CONDITION, retryable.
   */
  snapshot(guard: WriteGuard, options?: CallOptions): Promise<string>;
  /** No error if it is gone already. */
  deleteSnapshot(snapshot: string, options?: CallOptions): Promise<void>;
  /** Oldest first. */
  snapshots(options?: CallOptions): Promise<readonly string[]>;
  /** Sets the sequence number to max(current, fence): safe to repeat, harmless when late. */
  raiseFence(fence: number, leaseId: string | undefined, options?: CallOptions): Promise<void>;
  /**
   * Takes the lease under an id of our choosing, for `durationSeconds` (15 … 60). Taking it again under the same id
   * renews it. @throws REPLICA_LEASED while another id holds it (fact `expiresInMs` where known).
   */
  acquireLease(leaseId: string, durationSeconds: number, options?: CallOptions): Promise<void>;
  renewLease(leaseId: string, options?: CallOptions): Promise<void>;
  /** No error if the lease is gone already. */
  releaseLease(leaseId: string, options?: CallOptions): Promise<void>;
  /** Removes blob and snapshots; no error if absent. */
  remove(leaseId?: string, options?: CallOptions): Promise<void>;
}

/**
 * A large object in the making: parts that nobody sees until `commit` makes them the object. A staging that was neither
 * committed nor aborted goes by itself after a while. Of two stagings of one key the first to commit wins; the parts of
 * the other are gone.
 */
export interface StagedObject {
  /**
   * Stores a part: any order, several at a time; repeated with the same bytes only. All parts but the last have
   * `partBytes`. @throws RangeError for a part that is empty, too long, or beyond STAGED_PARTS_MAX.
   */
  put(index: number, bytes: Uint8Array, options?: CallOptions): Promise<void>;
  /**
   * Makes parts 0 … parts - 1 the object, in the place of what was there; durable. Safe to repeat, and without effect
   * when it arrives late. @throws STORE_CONDITION if another staging of the key was committed first, or this one waited so
   * long that its parts were removed; RangeError if a part was not put or is short.
   */
  commit(parts: number, options?: CallOptions): Promise<void>;
  /** Gives the parts up. Without effect after a commit. */
  abort(): Promise<void>;
}

export interface Store {
  /** For people: without secrets. */
  readonly url: string;
  /** Whether page writes carry a CRC-64: whoever makes bytes in another thread does well to make that there too. */
  readonly sendsCrc64?: boolean;
  /** Creates the container or folder if it is missing. */
  prepare(options?: CallOptions): Promise<void>;
  /** A whole small object; undefined if there is none. @throws STORE_REFUSED if it is longer than `maxBytes`. */
  get(key: string, maxBytes: number, options?: CallOptions): Promise<StoredObject | undefined>;
  /**
   * Replaces a whole object in one step; readers see the old or the new. `ifMatch`: an etag, or null for "must not
   * exist"; without it unconditional. Returns the new etag. @throws STORE_CONDITION.
   */
  put(key: string, bytes: Uint8Array, options?: PutOptions): Promise<string>;
  /**
   * The object as it is where it belongs, which may be older than what `get` returns after an early put. Absent where a
   * store has nothing but what is there.
   */
  readonly settled?:
    | ((key: string, maxBytes: number, options?: CallOptions) => Promise<StoredObject | undefined>)
    | undefined;
  /**
   * Bytes [offset, offset + lengthBytes) of an object, all of one version of it. @throws STORE_NOT_FOUND; STORE_CONDITION
   * (retryable) if it was replaced meanwhile; RangeError beyond its end, for no bytes at all, or if its length is another.
   */
  read(key: string, offset: number, lengthBytes: number, options?: ObjectReadOptions): Promise<Uint8Array>;
  /** Begins a large object that becomes visible in one step, in parts of `partBytes` (1 byte … 4 MiB). */
  stage(key: string, partBytes: number): StagedObject;
  delete(key: string, options?: CallOptions): Promise<void>;
  /** Keys that begin with `prefix`, in order. Page blobs are listed too; snapshots are not. */
  list(prefix: string, options?: CallOptions): AsyncIterable<string>;
  pages(key: string): PageBlob;
  close(): Promise<void>;
}
