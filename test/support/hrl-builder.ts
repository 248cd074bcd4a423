/**
 * Builds logs by hand from the published rules, field by field and without any code of src, so that reader and writer
 * are held against the rules and not against each other.
 */

const EPOCH_SECONDS = 946_684_800;
export const LOG_HEADER_BYTES = 4096;
/** 2024-01-01T00:00:00Z in log time. */
export const LOG_TIME: number = Date.UTC(2024, 0, 1) / 1000 - EPOCH_SECONDS;

export interface BuiltWrite {
  readonly at: number;
  readonly data: Uint8Array;
  readonly time?: number;
  /** Leaves DataChecksum 0, as Hyper-V does. */
  readonly unchecked?: boolean;
}

export interface BuiltLogOptions {
  /** One list of writes for each metadata block. */
  readonly blocks: readonly (readonly BuiltWrite[])[];
  readonly version?: 1 | 2;
  readonly metadataBytes?: number;
  /** Entries from the last slot to the first. */
  readonly tailFilled?: boolean;
  /** EOLLocation stays 0. */
  readonly open?: boolean;
  /** Sixteen bytes, as they stand in the file. */
  readonly uniqueId?: Uint8Array;
  readonly previousUniqueId?: Uint8Array;
  readonly dataWriteGuid?: Uint8Array;
  readonly creator?: string;
  readonly creatorVersion?: number;
  readonly cookieEnd?: number;
  readonly lastModified?: number;
}

/** Where a structure of a built log stands. */
export interface BuiltBlock {
  readonly dataAt: number;
  readonly at: number;
}

export interface BuiltLog {
  readonly bytes: Buffer;
  readonly blocks: readonly BuiltBlock[];
}

/** One's complement of the sum of the bytes, those of [skip, skip + 4) left out. */
export function logChecksum(bytes: Uint8Array, skip = -4): number {
  let sum = 0;
  for (let i = 0; i < bytes.byteLength; i += 1) {
    if (i < skip || i >= skip + 4) sum += bytes[i]!;
  }
  sum %= 0x1_0000_0000;
  return 0xffff_ffff - sum;
}

/** Makes the checksum of a header right. */
export function sealLogHeader(log: Buffer): void {
  log.writeUInt32LE(logChecksum(log.subarray(0, LOG_HEADER_BYTES), 40), 40);
}

/** Makes the checksums of the block at `at` right: of its header and of every slot that is not zero. */
export function sealLogBlock(log: Buffer, at: number, metadataBytes = 4096): void {
  log.writeUInt32LE(logChecksum(log.subarray(at, at + 32), 12), at + 12);
  for (let slot = at + 32; slot < at + metadataBytes; slot += 32) {
    const entry = log.subarray(slot, slot + 32);
    if (entry.some((byte) => byte !== 0)) entry.writeUInt32LE(logChecksum(entry, 8), 8);
  }
}

export function buildLog(options: BuiltLogOptions): BuiltLog {
  const { metadataBytes = 4096, tailFilled = false } = options;
  const parts: Buffer[] = [Buffer.alloc(LOG_HEADER_BYTES)];
  const blocks: BuiltBlock[] = [];
  let end = LOG_HEADER_BYTES;
  let count = 0;
  for (const writes of options.blocks) {
    const dataAt = end;
    for (const { data } of writes) {
      parts.push(Buffer.from(data));
      end += data.byteLength;
    }
    const before = blocks.at(-1);
    blocks.push({ dataAt, at: end });
    parts.push(buildBlock(writes, before === undefined ? 0 : end - before.at, metadataBytes, tailFilled));
    end += metadataBytes;
    count += writes.length;
  }
  const bytes = Buffer.concat(parts);
  putHeader(bytes, options, metadataBytes, count);
  return { bytes, blocks };
}

function putHeader(log: Buffer, options: BuiltLogOptions, metadataBytes: number, count: number): void {
  log.write('msctlog', 0, 'latin1');
  log.writeUInt8(options.cookieEnd ?? 0x20, 7);
  log.writeUInt32LE(options.version === 1 ? 0x10000 : 0x20000, 8);
  log.writeUInt32LE(LOG_TIME, 12);
  log.write(options.creator ?? 'ct  ', 16, 'latin1');
  log.writeUInt32LE(options.creatorVersion ?? 0x000a0000, 20);
  log.writeBigUInt64LE(BigInt(log.byteLength), 32);
  if (!options.open) log.writeBigUInt64LE(BigInt(log.byteLength), 44);
  log.writeUInt32LE(metadataBytes, 56);
  log.set(options.uniqueId ?? new Uint8Array(16).fill(0x11), 60);
  log.set(options.previousUniqueId ?? new Uint8Array(16), 76);
  log.writeUInt32LE(options.lastModified ?? LOG_TIME, 92);
  log.writeBigUInt64LE(BigInt(options.open ? 0 : count), 96);
  if (options.version !== 1 && options.dataWriteGuid) log.set(options.dataWriteGuid, 110);
  sealLogHeader(log);
}

function buildBlock(
  writes: readonly BuiltWrite[],
  distance: number,
  metadataBytes: number,
  tailFilled: boolean,
): Buffer {
  const block = Buffer.alloc(metadataBytes);
  block.writeBigUInt64LE(BigInt(distance), 0);
  block.writeUInt32LE(writes.length, 8);
  writes.forEach(({ at, data, time = LOG_TIME, unchecked = false }, i) => {
    const entry = block.subarray(tailFilled ? metadataBytes - 32 * (i + 1) : 32 * (i + 1));
    entry.writeBigUInt64LE(BigInt(at), 0);
    entry.writeUInt32LE(data.byteLength, 12);
    entry.writeUInt32LE(time, 16);
    entry.writeUInt8(1, 20);
    entry.writeUInt32LE(unchecked ? 0 : logChecksum(data), 21);
  });
  sealLogBlock(block, 0, metadataBytes);
  return block;
}
