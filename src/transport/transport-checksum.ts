/**
 * Checksums of what goes over the line: sent with each page write and part, where the service compares before anything changes, and
 * asked for with each range read of up to 4 MiB, where we compare.
 *
 * | kind | costs per MiB | |
 * |---|---|---|
 * | `crc64` | 0.5 ms | the default |
 * | `md5` | 2 ms | for emulators, which know no other |
 * | `none` | | TLS alone |
 */
import { createHash } from 'node:crypto';
import { bytesEqual } from '../bytes.ts';
import { crc64 } from './crc64.ts';

export type TransportChecksum = 'crc64' | 'md5' | 'none';

const NO_BYTES: Uint8Array = new Uint8Array(0);

/** The header in which a write says what its body is. */
export function checksumHeaders(kind: TransportChecksum, body: Uint8Array): Readonly<Record<string, string>> {
  if (kind === 'none') return {};
  return kind === 'md5'
    ? { 'content-md5': md5(body).toString('base64') }
    : { 'x-ms-content-crc64': crc64(body).toString('base64') };
}

/** What a range read asks for. */
export function checksumAsked(kind: TransportChecksum): {
  readonly rangeGetContentMD5?: boolean;
  readonly rangeGetContentCrc64?: boolean;
} {
  if (kind === 'none') return {};
  return kind === 'md5' ? { rangeGetContentMD5: true } : { rangeGetContentCrc64: true };
}

/** Whether the bytes are those that the answer to a range read speaks of. */
export function checksumHolds(
  kind: TransportChecksum,
  bytes: Uint8Array,
  answer: { readonly contentMD5?: Uint8Array; readonly contentCrc64?: Uint8Array },
): boolean {
  if (kind === 'none') return true;
  return kind === 'md5'
    ? bytesEqual(md5(bytes), answer.contentMD5 ?? NO_BYTES)
    : bytesEqual(crc64(bytes), answer.contentCrc64 ?? NO_BYTES);
}

function md5(bytes: Uint8Array): Buffer {
  return createHash('md5').update(bytes).digest();
}
