/**
 * The rules of page requests, and of ranges of objects: alignment, the 4 MiB limit, the end of the blob. Checked here for every store, because a
 * service answers them differently (an emulator accepts most breaches) and a folder would accept all of them.
 */
import { SECTOR_BYTES } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { FENCE_MAX, PAGE_BLOB_BYTES_MAX, PAGE_WRITE_BYTES_MAX } from '../limits.ts';

function checkInside(key: string, what: string, offset: number, lengthBytes: number, sizeBytes: number): void {
  if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(lengthBytes) || lengthBytes < 0) {
    throw new RangeError(`${key}: ${what} of ${lengthBytes} bytes at ${offset} is no range`);
  }
  if (offset + lengthBytes > sizeBytes) {
    throw new RangeError(`${key}: ${what} of ${lengthBytes} bytes at ${offset} ends outside the blob of ${sizeBytes}`);
  }
}

function checkAligned(key: string, what: string, offset: number, lengthBytes: number): void {
  if (lengthBytes === 0 || offset % SECTOR_BYTES !== 0 || lengthBytes % SECTOR_BYTES !== 0) {
    throw new RangeError(
      `${key}: ${what} of ${lengthBytes} bytes at ${offset} does not stand on ${SECTOR_BYTES} bytes`,
    );
  }
}

/** @throws {RangeError} unless it is 512 … 4 MiB bytes on 512 inside the blob. */
export function checkWrite(key: string, offset: number, lengthBytes: number, sizeBytes: number): void {
  checkInside(key, 'write', offset, lengthBytes, sizeBytes);
  checkAligned(key, 'write', offset, lengthBytes);
  if (lengthBytes > PAGE_WRITE_BYTES_MAX) {
    throw new RangeError(`${key}: write of ${lengthBytes} bytes is above ${PAGE_WRITE_BYTES_MAX}`);
  }
}

/** @throws {RangeError} unless it is a range on 512 inside the blob. */
export function checkClear(key: string, offset: number, lengthBytes: number, sizeBytes: number): void {
  checkInside(key, 'clear', offset, lengthBytes, sizeBytes);
  checkAligned(key, 'clear', offset, lengthBytes);
}

/** @throws {RangeError} unless it is a range inside the blob. */
export function checkRead(key: string, offset: number, lengthBytes: number, sizeBytes: number): void {
  checkInside(key, 'read', offset, lengthBytes, sizeBytes);
}

/** Where a read goes, once its length was checked. @throws {RangeError} unless `into` is as long as the read */
export function roomFor(lengthBytes: number, into: Uint8Array = Buffer.allocUnsafeSlow(lengthBytes)): Uint8Array {
  if (into.byteLength === lengthBytes) return into;
  throw new RangeError(`a place of ${into.byteLength} bytes does not take a read of ${lengthBytes}`);
}

/** @throws {RangeError} unless it may be a range of an object, whose length only the store knows. */
export function checkObjectRead(key: string, offset: number, lengthBytes: number): void {
  checkInside(key, 'read', offset, lengthBytes, Number.MAX_SAFE_INTEGER);
  if (lengthBytes === 0) throw new RangeError(`${key}: a read of an object has at least one byte`);
}

/** @throws {RangeError} unless the object has the length that its reader knows of, if it knows one. */
export function checkObjectSize(key: string, sizeBytes: number, expected: number | undefined): void {
  if (expected === undefined || sizeBytes === expected) return;
  throw new RangeError(`${key} has ${sizeBytes} bytes instead of ${expected}`);
}

/** The error for a read that an object ends before. */
export function beyondEnd(key: string, offset: number, lengthBytes: number, sizeBytes?: number): RangeError {
  const end = sizeBytes === undefined ? 'its end' : `its end at ${sizeBytes}`;
  return new RangeError(`${key}: a read of ${lengthBytes} bytes at ${offset} goes beyond ${end}`);
}

/** @throws {RangeError} unless a blob may have this size. */
export function checkBlobSize(key: string, sizeBytes: number): void {
  const fits = Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes <= PAGE_BLOB_BYTES_MAX;
  if (!fits || sizeBytes % SECTOR_BYTES !== 0) {
    throw new RangeError(`${key}: a blob has 512 … ${PAGE_BLOB_BYTES_MAX} bytes, a multiple of 512, not ${sizeBytes}`);
  }
}

/** @throws {RangeError} unless it is a sequence number that survives the way there and back. */
export function checkFence(key: string, fence: number): void {
  if (!Number.isSafeInteger(fence) || fence < 0 || fence > FENCE_MAX) {
    throw new RangeError(`${key}: ${fence} is no fence number`);
  }
}

const LEASE_ID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** @throws {RangeError} unless it is a GUID, and 15 … 60 seconds. */
export function checkLease(key: string, leaseId: string, durationSeconds: number): void {
  if (!LEASE_ID.test(leaseId)) throw new RangeError(`${key}: a lease id is a GUID, not ${JSON.stringify(leaseId)}`);
  if (!Number.isInteger(durationSeconds) || durationSeconds < 15 || durationSeconds > 60) {
    throw new RangeError(`${key}: a lease lasts 15 … 60 seconds, not ${durationSeconds}`);
  }
}

/** The error for an object that is longer than its reader allows. */
export function tooLong(key: string, lengthBytes: number, maxBytes: number): BlockferryError {
  return new BlockferryError('STORE_REFUSED', `${key} has ${lengthBytes} bytes, more than the limit of ${maxBytes}`, {
    facts: { source: key, lengthBytes, rule: `at most ${maxBytes} bytes` },
  });
}
