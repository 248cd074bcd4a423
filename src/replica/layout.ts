/**
 * Names of the objects of one replica below its prefix. See docs/formats/replica.md.
 */

export const DESCRIPTION_KEY = 'replica.json';
export const KEYRING_KEY = 'keyring.json';
export const ROOT_KEY = 'root';

/** What the keys of all shipped logs begin with. */
export const LOGS_PREFIX = 'logs/';
const SEQ_DIGITS = 20;

/**
 * Key of a shipped log: listing is in the order of shipping. The id makes it a key of its own for each try, so whoever ships
 * at the same time, or arrives late, does not touch what a root names.
 */
export function logKey({ seq, id }: { readonly seq: number; readonly id: Uint8Array }): string {
  return `${LOGS_PREFIX}${String(seq).padStart(SEQ_DIGITS, '0')}-${Buffer.from(id).toString('hex')}`;
}

const LOG_KEY = /^logs\/(\d{20})-[0-9a-f]{32}$/;

/** The `seq` in the key of a shipped log; undefined for any other key. */
export function logKeySeq(key: string): number | undefined {
  const match = LOG_KEY.exec(key);
  return match ? Number(match[1]) : undefined;
}

/** What the keys of all pins begin with. */
export const PINS_PREFIX = 'pins/';

/** Key of a pin: 16 random bytes. */
export function pinKey(id: Uint8Array): string {
  return `${PINS_PREFIX}${Buffer.from(id).toString('hex')}`;
}

export function isPinKey(key: string): boolean {
  return /^pins\/[0-9a-f]{32}$/.test(key);
}

/** Key of a disk's manifest blob. */
export function manifestKey(diskId: string): string {
  return `disks/${diskId}/manifest`;
}

/** Key of a segment of a disk's base. */
export function baseKey(diskId: string, segment: number): string {
  return segment === 0 ? `disks/${diskId}/base` : `disks/${diskId}/base.${segment}`;
}
