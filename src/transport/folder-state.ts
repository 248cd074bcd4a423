/**
 * The `state` file of a page blob in a folder: fence, lease, and what snapshots there have been.
 *
 * ```
 * offset 0      slot 0: "crc32 as 8 hex digits" SPACE "JSON" NEWLINE, padded with spaces to 4096 bytes
 * offset 4096   slot 1: the same
 * ```
 * A change goes into the slot that is not the newest and is synced, so a torn write leaves the state before it; the
 * valid slot with the higher `sequence` counts. It is changed in place, not replaced, because every page write looks
 * at it first: one read of an open file, and a process whose blob was removed under it finds the mark here.
 */
import { crc32 } from 'node:zlib';
import { BlockferryError } from '../errors.ts';
import type { RandomAccessFile } from '../ports.ts';

const SLOT_BYTES = 4096;

/** Length of the file. */
export const STATE_BYTES: number = 2 * SLOT_BYTES;

/** Who may write, until when. */
export interface Lease {
  readonly id: string;
  readonly durationMs: number;
  /** Wall time; another process must be able to read it. */
  readonly expiresMs: number;
}

export interface BlobState {
  /** Ascends by one with each change. */
  readonly sequence: number;
  readonly sizeBytes: number;
  readonly fence: number;
  readonly lease: Lease | null;
  /** Ascends when snapshots come or go: who holds an older number looks at the directory again. */
  readonly snapshotsVersion: number;
  /** Number of the newest snapshot ever taken; numbers are not used twice. */
  readonly lastSnapshot: number;
  readonly removed: boolean;
}

/** What a change may set. */
export type StateChange = Partial<Omit<BlobState, 'sequence'>>;

function encodeSlot(state: BlobState): Buffer {
  const json = JSON.stringify(state);
  const checksum = crc32(json).toString(16).padStart(8, '0');
  const slot = Buffer.alloc(SLOT_BYTES, ' ');
  slot.write(`${checksum} ${json}\n`, 0, 'latin1');
  return slot;
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isLease(value: unknown): value is Lease | null {
  if (value === null) return true;
  if (typeof value !== 'object') return false;
  const { id, durationMs, expiresMs } = value as Partial<Lease>;
  return typeof id === 'string' && isCount(durationMs) && isCount(expiresMs);
}

function decodeSlot(slot: Buffer): BlobState | undefined {
  const end = slot.indexOf('\n');
  if (end < 9) return undefined;
  const json = slot.toString('latin1', 9, end);
  if (crc32(json).toString(16).padStart(8, '0') !== slot.toString('latin1', 0, 8)) return undefined;
  let value: Partial<BlobState>;
  try {
    value = JSON.parse(json) as Partial<BlobState>;
  } catch {
    return undefined;
  }
  const { sequence, sizeBytes, fence, lease, snapshotsVersion, lastSnapshot, removed } = value;
  const counts = [sequence, sizeBytes, fence, snapshotsVersion, lastSnapshot].every(isCount);
  return counts && isLease(lease) && typeof removed === 'boolean' ? (value as BlobState) : undefined;
}

/** The bytes of a new state file. */
export function newStateFile(sizeBytes: number, fence: number): Buffer {
  const state = { sequence: 0, sizeBytes, fence, lease: null, snapshotsVersion: 0, lastSnapshot: 0, removed: false };
  return Buffer.concat([encodeSlot(state), Buffer.alloc(SLOT_BYTES, ' ')]);
}

/** The state of a blob, in its open file. What has not changed since the last look is not decoded again. */
export class StateFile {
  readonly #file: RandomAccessFile;
  #bytes: Buffer = Buffer.alloc(0);
  #state: BlobState | undefined;

  constructor(file: RandomAccessFile) {
    this.#file = file;
  }

  /** As it is now. @throws STORE_REFUSED if neither slot is whole. */
  async read(): Promise<BlobState> {
    const whole = Buffer.allocUnsafe(STATE_BYTES);
    const bytes = whole.subarray(0, await this.#file.read(whole, 0));
    if (this.#state && bytes.equals(this.#bytes)) return this.#state;
    const state = decodeState(bytes, this.#file.path);
    this.#bytes = bytes;
    this.#state = state;
    return state;
  }

  /** Makes `change` of the present state durable. Only under the store's lock. */
  async change(before: BlobState, change: StateChange): Promise<void> {
    const after = { ...before, ...change, sequence: before.sequence + 1 };
    await this.#file.write(encodeSlot(after), (after.sequence % 2) * SLOT_BYTES);
    await this.#file.sync();
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

function decodeState(bytes: Buffer, path: string): BlobState {
  const [a, b] = [decodeSlot(bytes.subarray(0, SLOT_BYTES)), decodeSlot(bytes.subarray(SLOT_BYTES))];
  const newest = a && b ? (a.sequence > b.sequence ? a : b) : (a ?? b);
  if (newest) return newest;
  throw new BlockferryError('STORE_REFUSED', `${path}: neither copy of the blob's state is whole`, {
    facts: { source: path, offset: 0, rule: 'one of two slots has its checksum' },
    hint: 'restore this file from a backup of the folder, or protect the item anew',
  });
}
