/**
 * BlockDevice: what the NBD server serves.
 *
 * Ranges lie inside the disk and have at least one byte; they need not be multiples of `minimumBlockBytes`, since old
 * clients never learn it. Calls may overlap in time. Where ranges of changes overlap too, the device orders them; a
 * later `read`, `allocation` or `dirty` sees every change that was answered before.
 */

/** A piece of a disk that is alike throughout. What the flags mean is the business of the context. */
export interface StatusExtent {
  readonly lengthBytes: number;
  readonly flags: number;
}

/** How `zero` is asked for. */
export interface ZeroRequest {
  /** The range may give up its space. */
  readonly unmap: boolean;
  readonly fua: boolean;
}

/** Flag of `allocation`: writing to the range may need space that is not there yet. */
export const ALLOCATION_HOLE = 1;
/** Flag of `allocation`: the range reads as zeros. */
export const ALLOCATION_ZERO = 2;
/** Flag of `dirty`: the range may differ from the replica. */
export const DIRTY = 1;

export interface BlockDevice {
  /** The export name. */
  readonly name: string;
  /** A multiple of `minimumBlockBytes`. */
  readonly sizeBytes: number;
  /** A power of two, at most 64 KiB. */
  readonly minimumBlockBytes: number;
  /** A power of two, at least 512 and `minimumBlockBytes`. */
  readonly preferredBlockBytes: number;
  /** Whether `zero` of any length is quicker than writing as many bytes. */
  readonly zeroIsFast: boolean;
  /** Fills all of `into`. */
  read(into: Uint8Array, offset: number): Promise<void>;
  /** `bytes` are the device's until this resolves. With `fua` they are durable then. */
  write(bytes: Uint8Array, offset: number, fua: boolean): Promise<void>;
  /** The range reads as zeros. With `fua` durably. */
  zero(offset: number, lengthBytes: number, request: ZeroRequest): Promise<void>;
  /** Makes everything durable that was answered before the call, whoever asked for it. */
  flush(): Promise<void>;
  /** The range from `offset` in order, without gaps; may end early, and may go beyond `lengthBytes`. */
  allocation(offset: number, lengthBytes: number): AsyncIterable<StatusExtent>;
  /** As `allocation`. */
  dirty(offset: number, lengthBytes: number): AsyncIterable<StatusExtent>;
}
