/**
 * GUIDs in Microsoft's mixed-endian byte order: u32 and two u16 little-endian, then eight bytes as they stand.
 * Text is upper case with hyphens and without braces: `2DC27766-F623-4200-9D64-115E9BFD4A08`.
 */

export const GUID_BYTES = 16;
/** The GUID of sixteen zero bytes. */
export const NIL_GUID = '00000000-0000-0000-0000-000000000000';

const ORDER = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15] as const;
const PATTERN = /^\{?([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})\}?$/i;

/** Sixteen mixed-endian bytes → text. */
export function formatGuid(bytes: Uint8Array): string {
  if (bytes.byteLength !== GUID_BYTES) throw new RangeError(`a GUID has 16 bytes, not ${bytes.byteLength}`);
  const hex = ORDER.map((i) => bytes[i]!.toString(16).padStart(2, '0')).join('');
  const text = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  return text.toUpperCase();
}

/** Text, with or without braces, any case → upper case without braces; undefined if it is no GUID. */
export function normalizeGuid(text: string): string | undefined {
  const match = PATTERN.exec(text.trim());
  return match ? match.slice(1).join('-').toUpperCase() : undefined;
}

/** Text → sixteen mixed-endian bytes. @throws {RangeError} if it is no GUID. */
export function guidBytes(text: string): Uint8Array {
  const normal = normalizeGuid(text);
  if (normal === undefined) throw new RangeError(`"${text}" is not a GUID`);
  const plain = Buffer.from(normal.replaceAll('-', ''), 'hex');
  return Uint8Array.from(ORDER, (i) => plain[i]!);
}

/** A version 4 GUID from sixteen random bytes. */
export function randomGuid(random: Uint8Array): string {
  const bytes = Uint8Array.from(random.subarray(0, GUID_BYTES));
  bytes[7] = (bytes[7]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return formatGuid(bytes);
}
