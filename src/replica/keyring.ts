/**
 * keyring.json: the wrapped master key and the data keys (epochs) of a replica, authenticated as a whole.
 *
 * Promises: a keyring that verifies was written by a holder of the master key, with exactly these slots and epochs. A
 * wrong key is told apart from a damaged keyring: the former opens no slot. Does not decide where key material comes
 * from. Layout: docs/formats/replica.md.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import {
  deriveEpochKeys,
  deriveReplicaKeys,
  type EpochKeys,
  NONCE_BYTES,
  type ReplicaKeys,
  XaesKey,
} from '../chunker/index.ts';
import { BlockferryError } from '../errors.ts';
import { KEY_SLOTS_MAX } from '../limits.ts';
import type { Random } from '../ports.ts';
import { canonicalJson, JsonReader } from './json.ts';
import { decodeSlot, encodeSlot, type KeyMaterial, type KeySlot, unwrapMaster, wrapMaster } from './key-wrap.ts';

const EPOCHS_MAX = 4096;
const EPOCH_WRAPPED_BYTES = NONCE_BYTES + 32 + 16;
const MAC_BYTES = 32;

interface WrappedEpoch {
  readonly epoch: number;
  readonly wrapped: Uint8Array;
}

/** A keyring as it stands in the store, not yet opened. */
export interface Keyring {
  readonly counter: number;
  readonly slots: readonly KeySlot[];
  readonly epochs: readonly WrappedEpoch[];
  readonly mac: Uint8Array;
}

/** The keys of a replica in memory. */
export interface OpenKeyring {
  readonly keyring: Keyring;
  readonly master: Uint8Array;
  readonly keys: ReplicaKeys;
  readonly epochs: ReadonlyMap<number, EpochKeys>;
  readonly currentEpoch: number;
}

/** A keyring of `master` and its first epoch, wrapped by each of `materials` (at least one). */
export async function createKeyring(
  master: Uint8Array,
  materials: readonly KeyMaterial[],
  random: Random,
): Promise<OpenKeyring> {
  if (materials.length === 0) throw new RangeError('a keyring needs at least one slot, or its data is lost');
  const slots: KeySlot[] = [];
  for (const material of materials) slots.push(await wrapMaster(master, material, newSlotId(slots), random));
  const epochs = [wrapEpoch(master, 1, random)];
  return openWithMaster(sign(master, { counter: 1, slots, epochs }), master, 'new keyring');
}

/** The same keyring with one more slot. */
export async function addSlot(open: OpenKeyring, material: KeyMaterial, random: Random): Promise<OpenKeyring> {
  const { slots } = open.keyring;
  if (slots.length >= KEY_SLOTS_MAX) {
    throw new BlockferryError('KEY_INVALID', `the keyring is full with ${slots.length} keys`, {
      hint: 'remove a key first: blockferry key remove',
    });
  }
  const slot = await wrapMaster(open.master, material, newSlotId(slots), random);
  return rewrite(open, { slots: [...slots, slot] });
}

/** The same keyring without a slot. The last one cannot be removed. */
export function removeSlot(open: OpenKeyring, id: string): OpenKeyring {
  const { slots } = open.keyring;
  if (!slots.some((slot) => slot.id === id)) {
    throw new BlockferryError('USAGE', `the keyring has no key "${id}"`, {
      facts: { id },
      hint: `its keys are: ${slots.map((slot) => slot.id).join(', ')}`,
    });
  }
  if (slots.length === 1) {
    throw new BlockferryError('USAGE', `"${id}" is the only key: without it the replica could never be opened again`, {
      facts: { id },
      hint: 'add another key first: blockferry key add',
    });
  }
  return rewrite(open, { slots: slots.filter((slot) => slot.id !== id) });
}

/** The same keyring with a new data key; what is written from now on is sealed under it. */
export function addEpoch(open: OpenKeyring, random: Random): OpenKeyring {
  const epoch = wrapEpoch(open.master, open.currentEpoch + 1, random);
  return rewrite(open, { epochs: [...open.keyring.epochs, epoch] });
}

/** @throws KEY_WRONG if the material opens no slot; REPLICA_KEYRING if the keyring is not authentic. */
export async function openKeyring(
  keyring: Keyring,
  materials: readonly KeyMaterial[],
  source: string,
): Promise<OpenKeyring> {
  for (const material of materials) {
    for (const slot of keyring.slots) {
      const master = await unwrapMaster(slot, material);
      if (master) return openWithMaster(keyring, master, source);
    }
  }
  const kinds = [...new Set(keyring.slots.map((slot) => slot.type))].join(', ');
  throw new BlockferryError(
    'KEY_WRONG',
    `${source}: the key given opens none of its ${keyring.slots.length} slots (${kinds})`,
    {
      facts: { source, slots: keyring.slots.length },
      hint: 'give the key file, passphrase or certificate that the replica was protected with',
    },
  );
}

/** Opens a keyring with the master key itself (kept by the machine that protects). @throws REPLICA_KEYRING, KEY_WRONG */
export function openWithMaster(keyring: Keyring, master: Uint8Array, source: string): OpenKeyring {
  const keys = deriveReplicaKeys(master);
  if (!timingSafeEqual(mac(keys.keyring, keyring), keyring.mac)) {
    throw new BlockferryError('REPLICA_KEYRING', `${source}: the keyring does not verify under its own master key`, {
      facts: { source, rule: 'MAC' },
      hint: 'the keyring was changed by somebody without the key; restore keyring.json from a copy',
    });
  }
  const cipher = new XaesKey(master);
  const epochs = new Map<number, EpochKeys>();
  for (const { epoch, wrapped } of keyring.epochs) {
    const key = cipher.open(wrapped.subarray(0, NONCE_BYTES), epochAad(epoch), wrapped.subarray(NONCE_BYTES));
    if (!key) throw new BlockferryError('REPLICA_KEYRING', `${source}: the data key of epoch ${epoch} does not open`);
    epochs.set(epoch, deriveEpochKeys(key, epoch));
  }
  return { keyring, master, keys, epochs, currentEpoch: Math.max(...epochs.keys()) };
}

export function encodeKeyring(keyring: Keyring): Uint8Array {
  const { mac, ...body } = keyring;
  return Buffer.from(`${canonicalJson({ ...bodyJson(body), mac: Buffer.from(mac).toString('hex') })}\n`);
}

/** @throws REPLICA_KEYRING if it is not a keyring. Nothing in it is to be believed before it is opened. */
export function decodeKeyring(bytes: Uint8Array, source: string): Keyring {
  const json = JsonReader.parse(bytes, source, 'REPLICA_KEYRING');
  json.field('version').integer(1, 1);
  const epochs = json
    .field('epochs')
    .list(EPOCHS_MAX)
    .map((entry) => ({
      epoch: entry.field('epoch').integer(1, 0xffff_ffff),
      wrapped: entry.field('wrapped').hex(EPOCH_WRAPPED_BYTES),
    }));
  if (epochs.length === 0) json.fail('epochs has an entry');
  return {
    counter: json.field('counter').integer(1, Number.MAX_SAFE_INTEGER),
    slots: json.field('slots').list(KEY_SLOTS_MAX).map(decodeSlot),
    epochs,
    mac: json.field('mac').hex(MAC_BYTES),
  };
}

type KeyringBody = Omit<Keyring, 'mac'>;

function bodyJson(body: KeyringBody) {
  const epochs = body.epochs.map(({ epoch, wrapped }) => ({ epoch, wrapped: Buffer.from(wrapped).toString('hex') }));
  return { version: 1, counter: body.counter, slots: body.slots.map(encodeSlot), epochs };
}

function mac(key: Uint8Array, body: KeyringBody): Uint8Array {
  return createHmac('sha256', key)
    .update(canonicalJson(bodyJson(body)))
    .digest();
}

function sign(master: Uint8Array, body: KeyringBody): Keyring {
  return { ...body, mac: mac(deriveReplicaKeys(master).keyring, body) };
}

function rewrite(open: OpenKeyring, change: Partial<KeyringBody>): OpenKeyring {
  const { mac: _, ...body } = open.keyring;
  const keyring = sign(open.master, { ...body, ...change, counter: body.counter + 1 });
  return openWithMaster(keyring, open.master, 'changed keyring');
}

const epochAad = (epoch: number): Uint8Array => Buffer.from(`blockferry/epoch/1/${epoch}`);

function wrapEpoch(master: Uint8Array, epoch: number, random: Random): WrappedEpoch {
  const nonce = random.bytes(NONCE_BYTES);
  return { epoch, wrapped: Buffer.concat([nonce, new XaesKey(master).seal(nonce, epochAad(epoch), random.bytes(32))]) };
}

/** The lowest unused `k1`, `k2` … */
function newSlotId(slots: readonly KeySlot[]): string {
  let n = 1;
  while (slots.some((slot) => slot.id === `k${n}`)) n += 1;
  return `k${n}`;
}
