/**
 * Checksums of what goes over the line: sent with each page write and part, where the service compares before anything changes, and
 * asked for with each range read of up to 4 MiB, where we compare.
 *
 * | kind | costs | |
 * |---|---|---|
 * | `crc64` | less than half of an MD5 | the default |
 * | `md5` | | for emulators, which know no other |
 * | `none` | | TLS alone |
 */
import { createHash } from 'node:crypto';
import { asBuffer } from '../bytes.ts';
import { crc64 } from '../chunker/index.ts';

export type TransportChecksum = 'crc64' | 'md5' | 'none';

/** The header in which a write says what its body is. `known`: its CRC-64, where somebody has it. */
export function checksumHeaders(
  kind: TransportChecksum,
  body: Uint8Array,
  known?: Uint8Array,
): Readonly<Record<string, string>> {
  if (kind === 'none') return {};
  return kind === 'md5'
    ? { 'content-md5': md5(body).toString('base64') }
    : { 'x-ms-content-crc64': asBuffer(known ?? crc64(body)).toString('base64') };
}

/** The header in which a range read asks for one. */
export function checksumAsked(kind: TransportChecksum): Readonly<Record<string, string>> {
  if (kind === 'none') return {};
  return { [kind === 'md5' ? 'x-ms-range-get-content-md5' : 'x-ms-range-get-content-crc64']: 'true' };
}

/** Whether the bytes are those that the headers of the answer to a range read speak of. */
export function checksumHolds(
  kind: TransportChecksum,
  bytes: Uint8Array,
  answer: { get(name: string): string | undefined },
): boolean {
  return Object.entries(checksumHeaders(kind, bytes)).every(([name, checksum]) => answer.get(name) === checksum);
}

function md5(bytes: Uint8Array): Buffer {
  return createHash('md5').update(bytes).digest();
}
