/**
 * Frames of shipped logs: records of several disks with their bytes, compressed and sealed together
 * (docs/formats/shipped-log.md).
 *
 *     frame      header 64 | ciphertext clen | tag 16
 *     plaintext  count u32 | count records of 16 | data
 *     record     0 disk u16 | 2 kind u8 (0 data, 1 zeros) | 3 reserved u8 | 4 length u32 | 8 offset u64
 *
 * `open` returns the plaintext that was sealed for exactly this replica, log and frame number, or throws REPLICA_LOG.
 * `LogOrder.pieces` takes it apart and holds what must be true over a whole log: pieces ascend by disk, then offset, and none
 * overlap. How many frames a log has, only the root tells.
 */
import { ByteReader, SECTOR_BYTES } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { LOG_FRAME_DATA_BYTES_MAX, LOG_FRAME_RECORDS_MAX } from '../limits.ts';
import { COMPRESSION_CODE_MAX, COMPRESSION_CODES, type Codec, decompress, PAYLOAD_LENGTH_BYTES } from './codec.ts';
import { HEADER_BYTES, TAG_BYTES } from './geometry.ts';
import { HEADER, RecordCipher, type SealingContext, writeU64 } from './record.ts';
import { isZero } from './zero.ts';

/** `RLF1` as a little-endian u32. */
const MAGIC_FRAME = 0x3146_4c52;
const NO_BYTES: Uint8Array = new Uint8Array(0);

const COUNT_BYTES = 4;
const RECORD_BYTES = 16;
const RECORD = { disk: 0, kind: 2, length: 4, offset: 8 } as const;
const KIND = { data: 0, zeros: 1 } as const;
const TABLE_BYTES_MAX = COUNT_BYTES + LOG_FRAME_RECORDS_MAX * RECORD_BYTES;
const PLAINTEXT_BYTES_MIN = COUNT_BYTES + RECORD_BYTES;
const PLAINTEXT_BYTES_MAX: number = TABLE_BYTES_MAX + LOG_FRAME_DATA_BYTES_MAX;

/** Header of a frame: what has to be read to know how long the frame is. */
export const LOG_FRAME_HEADER_BYTES: number = HEADER_BYTES;
/** The longest frame there is. */
export const LOG_FRAME_BYTES_MAX: number = HEADER_BYTES + PLAINTEXT_BYTES_MAX + TAG_BYTES;
/** The longest run of zeros in one record: what a u32 holds in whole sectors. */
export const LOG_ZEROS_BYTES_MAX = 0xffff_fe00;

/** Which log a frame belongs to. */
export interface LogIdentity {
  readonly seq: number;
  /** 16 random bytes. */
  readonly id: Uint8Array;
}

/** Part of a disk, and what a log left there. */
export interface LogPiece {
  readonly disk: number;
  readonly offset: number;
  readonly lengthBytes: number;
  /** Absent: zeros. */
  readonly bytes?: Uint8Array;
}

/** Seals and opens the frames of one log. Not to be shared between threads. */
export class LogFrameCipher {
  readonly #record: RecordCipher;
  readonly #log: LogIdentity;

  constructor(context: Omit<SealingContext, 'diskId'>, log: LogIdentity) {
    const fault = (frame: number, rule: string): BlockferryError => logFault(log.seq, frame, rule);
    this.#record = new RecordCipher({ label: 'rlogf1\0\0', purpose: 'data', fault }, { ...context, diskId: log.id });
    this.#log = log;
  }

  /**
   * Compresses with `codec` where that pays, seals, and writes the frame to the head of `into`, where
   * LOG_FRAME_BYTES_MAX is always enough. Returns its length.
   */
  seal(plaintext: Uint8Array, frame: number, codec: Codec, into: Buffer): number {
    const packed = codec.compress(plaintext);
    const content = packed ?? plaintext;
    const frameBytes = HEADER_BYTES + content.byteLength + TAG_BYTES;
    const record = {
      magic: MAGIC_FRAME,
      number: frame,
      generation: this.#log.seq,
      compression: packed === undefined ? COMPRESSION_CODES.none : codec.code,
      plaintextLength: plaintext.byteLength,
      head: content,
      tail: NO_BYTES,
      identity: content,
    };
    this.#record.seal(record, into, 0, frameBytes);
    return frameBytes;
  }

  /**
   * The plaintext, good until something else is opened or sealed on this thread. `bytes` is exactly the frame.
   * @throws REPLICA_LOG for anything but what was sealed as this frame of this log
   */
  open(bytes: Uint8Array, frame: number): Buffer {
    const { content, compression, plaintextLength } = this.#record.openSelfDescribed(bytes, {
      magic: MAGIC_FRAME,
      number: frame,
      generation: this.#log.seq,
      compressionMax: COMPRESSION_CODE_MAX,
      plaintextMin: PLAINTEXT_BYTES_MIN,
      plaintextMax: PLAINTEXT_BYTES_MAX,
      packedMin: PAYLOAD_LENGTH_BYTES + 1,
    });
    if (compression === COMPRESSION_CODES.none) return content;
    if (content.readUInt32LE(0) !== content.byteLength - PAYLOAD_LENGTH_BYTES) {
      throw logFault(this.#log.seq, frame, 'the payload ends with the frame');
    }
    const plaintext = decompress(compression, content, plaintextLength);
    if (plaintext === undefined) throw logFault(this.#log.seq, frame, 'the payload decompresses to its length');
    return plaintext;
  }
}

/**
 * Length of the frame that begins with this header, which nobody has authenticated yet.
 * @throws REPLICA_LOG if no frame can be so long
 */
export function logFrameBytes(header: Uint8Array, seq: number, frame: number): number {
  const view = new DataView(header.buffer, header.byteOffset, HEADER_BYTES);
  if (view.getUint32(HEADER.magic, true) !== MAGIC_FRAME) throw logFault(seq, frame, 'magic is right');
  const clen = view.getUint32(HEADER.clen, true);
  if (clen > PLAINTEXT_BYTES_MAX) throw logFault(seq, frame, `clen is at most ${PLAINTEXT_BYTES_MAX}`);
  return HEADER_BYTES + clen + TAG_BYTES;
}

/** Puts the plaintext of one frame after the other together, in memory of its own. */
export class LogFrameBuilder {
  /** Records from the front; data from where the longest table would end. */
  readonly #memory: Buffer = Buffer.allocUnsafeSlow(PLAINTEXT_BYTES_MAX);
  #records = 0;
  #dataBytes = 0;

  /** Bytes of data so far. */
  get dataBytes(): number {
    return this.#dataBytes;
  }

  /** Begins a frame. */
  begin(): void {
    this.#records = 0;
    this.#dataBytes = 0;
  }

  /** Where the bytes of the next data record go; they count when `addData` follows. */
  room(lengthBytes: number): Buffer {
    const start = TABLE_BYTES_MAX + this.#dataBytes;
    if (this.#dataBytes + lengthBytes > LOG_FRAME_DATA_BYTES_MAX) {
      throw new RangeError(`a frame has no room for ${this.#dataBytes} + ${lengthBytes} bytes`);
    }
    return this.#memory.subarray(start, start + lengthBytes);
  }

  /** A record of the bytes that stand in `room`; one of zeros, if that is what they are. */
  addData(disk: number, offset: number, lengthBytes: number): void {
    if (isZero(this.room(lengthBytes))) {
      this.addZeros(disk, offset, lengthBytes);
    } else {
      this.#add(disk, KIND.data, offset, lengthBytes);
      this.#dataBytes += lengthBytes;
    }
  }

  addZeros(disk: number, offset: number, lengthBytes: number): void {
    this.#add(disk, KIND.zeros, offset, lengthBytes);
  }

  /** The plaintext; a view that is good until the next frame begins. */
  finish(): Buffer {
    const tableBytes = this.#records * RECORD_BYTES;
    const start = TABLE_BYTES_MAX - tableBytes - COUNT_BYTES;
    this.#memory.copyWithin(TABLE_BYTES_MAX - tableBytes, COUNT_BYTES, COUNT_BYTES + tableBytes);
    this.#memory.writeUInt32LE(this.#records, start);
    return this.#memory.subarray(start, TABLE_BYTES_MAX + this.#dataBytes);
  }

  #add(disk: number, kind: number, offset: number, lengthBytes: number): void {
    if (this.#extendLast(disk, kind, offset, lengthBytes)) return;
    if (this.#records === LOG_FRAME_RECORDS_MAX) throw new RangeError(`a frame has ${this.#records} records at most`);
    const at = COUNT_BYTES + this.#records * RECORD_BYTES;
    this.#memory.writeUInt16LE(disk, at + RECORD.disk);
    this.#memory.writeUInt16LE(kind, at + RECORD.kind);
    this.#memory.writeUInt32LE(lengthBytes, at + RECORD.length);
    writeU64(this.#memory, at + RECORD.offset, offset);
    this.#records += 1;
  }

  /** A range that follows the one before it is the same record: many small writes in a row cost 16 bytes together. */
  #extendLast(disk: number, kind: number, offset: number, lengthBytes: number): boolean {
    if (this.#records === 0) return false;
    const at = COUNT_BYTES + (this.#records - 1) * RECORD_BYTES;
    const before = this.#memory.readUInt32LE(at + RECORD.length);
    const start = Number(this.#memory.readBigUInt64LE(at + RECORD.offset));
    const isSame =
      this.#memory.readUInt16LE(at + RECORD.disk) === disk && this.#memory.readUInt16LE(at + RECORD.kind) === kind;
    if (!isSame || start + before !== offset || before + lengthBytes > LOG_ZEROS_BYTES_MAX) return false;
    this.#memory.writeUInt32LE(before + lengthBytes, at + RECORD.length);
    return true;
  }
}

/** How far a log has got: the order of its pieces over all its frames. */
export class LogOrder {
  readonly #seq: number;
  readonly #diskBytes: readonly number[];
  #disk = 0;
  #endOffset = 0;

  /** @param diskBytes Virtual size of each disk of the replica */
  constructor(seq: number, diskBytes: readonly number[]) {
    this.#seq = seq;
    this.#diskBytes = diskBytes;
  }

  /** The pieces of the next frame; their bytes are views of `plaintext`. @throws REPLICA_LOG */
  pieces(plaintext: Uint8Array, frame: number): readonly LogPiece[] {
    const source = `shipped log ${this.#seq}, frame ${frame}`;
    const reader = new ByteReader(plaintext, { source, offset: 0, code: 'REPLICA_LOG' });
    const count = reader.u32LE();
    if (count < 1 || count > LOG_FRAME_RECORDS_MAX) {
      throw logFault(this.#seq, frame, `a frame has 1 … ${LOG_FRAME_RECORDS_MAX} records, not ${count}`);
    }
    const table = new ByteReader(reader.bytes(count * RECORD_BYTES), {
      source,
      offset: COUNT_BYTES,
      code: 'REPLICA_LOG',
    });
    if (reader.remaining > LOG_FRAME_DATA_BYTES_MAX) {
      throw logFault(this.#seq, frame, `a frame has at most ${LOG_FRAME_DATA_BYTES_MAX} bytes of data`);
    }
    const pieces: LogPiece[] = [];
    for (let i = 0; i < count; i += 1) {
      const disk = table.u16LE();
      const kind = table.u16LE();
      const lengthBytes = table.u32LE();
      const offset = table.u64LE();
      const rule = this.#fault(disk, kind, offset, lengthBytes);
      if (rule !== undefined) throw logFault(this.#seq, frame, `record ${i}: ${rule}`);
      const place = { disk, offset: Number(offset), lengthBytes };
      pieces.push(kind === KIND.zeros ? place : { ...place, bytes: reader.bytes(lengthBytes) });
      this.#disk = disk;
      this.#endOffset = place.offset + lengthBytes;
    }
    if (reader.remaining > 0) throw logFault(this.#seq, frame, 'data ends with the frame');
    return pieces;
  }

  /** The rule that a record breaks; the kind comes with the reserved byte above it. */
  #fault(disk: number, kind: number, offset: bigint, lengthBytes: number): string | undefined {
    const diskBytes = this.#diskBytes[disk];
    if (kind !== KIND.data && kind !== KIND.zeros) return 'kind is 0 or 1 and the reserved byte is 0';
    if (diskBytes === undefined) return `disk ${disk} is one of ${this.#diskBytes.length}`;
    if (lengthBytes === 0 || lengthBytes % SECTOR_BYTES !== 0 || offset % BigInt(SECTOR_BYTES) !== 0n) {
      return `${lengthBytes} bytes at ${offset} are whole sectors`;
    }
    if (offset + BigInt(lengthBytes) > BigInt(diskBytes))
      return `${lengthBytes} bytes at ${offset} are inside the disk`;
    if (disk < this.#disk || (disk === this.#disk && offset < BigInt(this.#endOffset))) {
      return 'records ascend by disk and offset and do not overlap';
    }
    return undefined;
  }
}

/** The error for a shipped log that is not what its root says. */
export function logFault(seq: number, frame: number, rule: string): BlockferryError {
  return new BlockferryError('REPLICA_LOG', `shipped log ${seq}: frame ${frame} breaks the rule: ${rule}`, {
    facts: { log: seq, frame, rule },
    hint: 'recovery points before this log are whole; with the source, resync makes the replica whole again',
  });
}
