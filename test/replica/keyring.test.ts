/** Keys wrapped by every kind of slot, and what somebody without them can do to a keyring: nothing. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { nodeRandom } from '../../src/host/index.ts';
import { KEY_SLOTS_MAX } from '../../src/limits.ts';
import { JsonReader } from '../../src/replica/json.ts';
import { decodeSlot, encodeSlot, type KeyMaterial, unwrapMaster, wrapMaster } from '../../src/replica/key-wrap.ts';
import {
  addEpoch,
  addSlot,
  createKeyring,
  decodeKeyring,
  encodeKeyring,
  type Keyring,
  type OpenKeyring,
  openKeyring,
  openWithMaster,
  removeSlot,
} from '../../src/replica/keyring.ts';
import { noise } from '../chunker/support.ts';

const MASTER = noise(32, 1);
const FILE: KeyMaterial = { type: 'key-file', secret: noise(32, 2) };
const OTHER_FILE: KeyMaterial = { type: 'key-file', secret: noise(32, 3) };
const PHRASE: KeyMaterial = { type: 'passphrase', passphrase: 'caf\u00e9 au lait' };

/** A self-signed certificate with its private key, as `openssl req` makes it; fails loudly where there is no openssl. */
function certificate(name: string, ...newKey: readonly string[]): { readonly full: string; readonly open: string } {
  const directory = mkdtempSync(join(tmpdir(), 'blockferry-x509-'));
  try {
    const [key, pem] = [join(directory, 'key.pem'), join(directory, 'cert.pem')];
    const request = [
      'req',
      '-x509',
      ...newKey,
      '-nodes',
      '-keyout',
      key,
      '-out',
      pem,
      '-days',
      '2',
      '-subj',
      `/CN=${name}`,
    ];
    execFileSync('openssl', request, { stdio: 'pipe' });
    const open = readFileSync(pem, 'latin1');
    return { full: open + readFileSync(key, 'latin1'), open };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

let rsa: ReturnType<typeof certificate>;
let otherRsa: ReturnType<typeof certificate>;
let weak: ReturnType<typeof certificate>;
let elliptic: ReturnType<typeof certificate>;
beforeAll(() => {
  rsa = certificate('one', '-newkey', 'rsa:2048');
  otherRsa = certificate('two', '-newkey', 'rsa:2048');
  weak = certificate('weak', '-newkey', 'rsa:1024');
  elliptic = certificate('ec', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256');
});

const pem = (text: string): KeyMaterial => ({ type: 'certificate', pem: text });
const create = (...materials: readonly KeyMaterial[]): Promise<OpenKeyring> =>
  createKeyring(MASTER, materials, nodeRandom);

/** The keyring as a store hands it out, with fields of its JSON changed. */
function tampered(keyring: Keyring, change: (json: Record<string, unknown>) => void = () => {}): Keyring {
  const json = JSON.parse(Buffer.from(encodeKeyring(keyring)).toString()) as Record<string, unknown>;
  change(json);
  return decodeKeyring(Buffer.from(JSON.stringify(json)), 'keyring.json');
}

describe('a key slot', () => {
  it('of every type gives the master key to its own material only', async () => {
    const materials: readonly KeyMaterial[] = [FILE, PHRASE, pem(rsa.full)];
    const wrong: readonly KeyMaterial[] = [OTHER_FILE, { type: 'passphrase', passphrase: 'cafe' }, pem(otherRsa.full)];
    for (const material of materials) {
      const made = await wrapMaster(MASTER, material, 'k1', nodeRandom);
      const slot = decodeSlot(new JsonReader(JSON.parse(JSON.stringify(encodeSlot(made))), 's', 'REPLICA_KEYRING'));
      expect(slot).toEqual(made);
      expect(Buffer.from((await unwrapMaster(slot, material))!).equals(MASTER)).toBe(true);
      for (const other of [...wrong, ...materials.filter((m) => m.type !== material.type)]) {
        expect(await unwrapMaster(slot, other), `${material.type} by ${other.type}`).toBeUndefined();
      }
    }
  });

  it('takes a passphrase however its accents were typed', async () => {
    const slot = await wrapMaster(MASTER, PHRASE, 'k1', nodeRandom);
    const decomposed: KeyMaterial = { type: 'passphrase', passphrase: 'cafe\u0301 au lait' };
    expect(await unwrapMaster(slot, decomposed)).toBeDefined();
  });

  it('is made with the certificate alone, and opened with its private key', async () => {
    const slot = await wrapMaster(MASTER, pem(rsa.open), 'k1', nodeRandom);
    expect(await unwrapMaster(slot, pem(rsa.full))).toBeDefined();
    await expect(unwrapMaster(slot, pem(rsa.open))).rejects.toMatchObject({ code: 'KEY_INVALID' });
  });

  it('is not made with a certificate that cannot wrap', async () => {
    for (const text of [weak.full, elliptic.full, 'nothing', '']) {
      await expect(wrapMaster(MASTER, pem(text), 'k1', nodeRandom)).rejects.toMatchObject({ code: 'KEY_INVALID' });
    }
  });

  it('cannot trade its content with another one', async () => {
    const [a, b] = [await wrapMaster(MASTER, FILE, 'k1', nodeRandom), await wrapMaster(MASTER, FILE, 'k2', nodeRandom)];
    expect(await unwrapMaster({ ...a, wrapped: b.wrapped } as never, FILE)).toBeUndefined();
  });

  it.each([
    { type: 'key-file', wrapped: 'AAAA' },
    { type: 'passphrase', salt: 'AAAA', wrapped: Buffer.alloc(72).toString('base64') },
    { type: 'passphrase', wrapped: Buffer.alloc(72).toString('base64') },
    { type: 'certificate', thumbprint: '00', wrapped: 'AAAA' },
    { type: 'other', wrapped: 'AAAA' },
  ])('is refused as %j', (json) => {
    expect(() => decodeSlot(new JsonReader({ id: 'k1', ...json }, 's', 'REPLICA_KEYRING'))).toThrow(
      expect.objectContaining({ code: 'REPLICA_KEYRING' }),
    );
  });
});

describe('a keyring', () => {
  it('reads back, with the same keys for each of its materials', async () => {
    const made = await create(FILE, pem(rsa.open));
    const sealed = tampered(made.keyring);
    expect(sealed).toEqual(made.keyring);
    for (const material of [FILE, pem(rsa.full)]) {
      const opened = await openKeyring(sealed, [OTHER_FILE, material], 'k');
      expect(opened.keys).toEqual(made.keys);
      expect(opened.epochs).toEqual(made.epochs);
    }
    expect(openWithMaster(sealed, MASTER, 'k').keys).toEqual(made.keys);
  });

  it('says KEY_WRONG to a wrong key, and how many slots it tried', async () => {
    const { keyring } = await create(FILE);
    for (const wrong of [OTHER_FILE, PHRASE, pem(rsa.full)]) {
      await expect(openKeyring(keyring, [wrong], 'k')).rejects.toMatchObject({
        code: 'KEY_WRONG',
        facts: { slots: 1 },
      });
    }
    await expect(openKeyring(keyring, [], 'k')).rejects.toMatchObject({ code: 'KEY_WRONG' });
  });

  it('goes on as one that counts, whatever is changed in it', async () => {
    const first = await create(FILE);
    const second = await addSlot(first, OTHER_FILE, nodeRandom);
    const third = addEpoch(second, nodeRandom);
    const fourth = removeSlot(third, 'k1');
    expect([first, second, third, fourth].map((ring) => ring.keyring.counter)).toEqual([1, 2, 3, 4]);
    expect([first, second, third, fourth].map((ring) => ring.currentEpoch)).toEqual([1, 1, 2, 2]);
    expect([...fourth.epochs.keys()]).toEqual([1, 2]);
    expect(fourth.epochs.get(1)).toEqual(first.epochs.get(1));
    expect(fourth.keys).toEqual(first.keys);
    await openKeyring(fourth.keyring, [OTHER_FILE], 'k');
    await expect(openKeyring(fourth.keyring, [FILE], 'k')).rejects.toMatchObject({ code: 'KEY_WRONG' });
    expect((await addSlot(fourth, FILE, nodeRandom)).keyring.slots.map(({ id }) => id)).toEqual(['k2', 'k1']);
  });

  it('keeps its last slot, and knows only its own', async () => {
    const ring = await create(FILE);
    expect(() => removeSlot(ring, 'k1')).toThrow(expect.objectContaining({ code: 'USAGE' }));
    expect(() => removeSlot(ring, 'k9')).toThrow(/has no key "k9"/);
    await expect(create()).rejects.toThrow(RangeError);
  });

  it('has an end', async () => {
    let ring = await create(FILE);
    while (ring.keyring.slots.length < KEY_SLOTS_MAX) ring = await addSlot(ring, FILE, nodeRandom);
    await expect(addSlot(ring, FILE, nodeRandom)).rejects.toMatchObject({ code: 'KEY_INVALID' });
    expect(tampered(ring.keyring).slots).toHaveLength(KEY_SLOTS_MAX);
  });

  describe('in the hands of somebody without the key', () => {
    let ring: OpenKeyring;
    let foreign: OpenKeyring;
    beforeAll(async () => {
      ring = addEpoch(await create(FILE, OTHER_FILE), nodeRandom);
      foreign = await createKeyring(noise(32, 99), [FILE], nodeRandom);
    });
    type Json = { counter: number; mac: string; slots: Record<string, unknown>[]; epochs: Record<string, unknown>[] };
    const json = (keyring: Keyring): Json => JSON.parse(Buffer.from(encodeKeyring(keyring)).toString()) as Json;
    const ATTACKS: readonly (readonly [string, (json: Json) => void, readonly string[]])[] = [
      [
        'a slot grafted on from another keyring',
        (j) => j.slots.push({ ...json(foreign.keyring).slots[0]!, id: 'k3' }),
        ['REPLICA_KEYRING'],
      ],
      [
        'a slot of another keyring in the place of ours',
        (j) => j.slots.splice(0, 1, json(foreign.keyring).slots[0]!),
        ['REPLICA_KEYRING'],
      ],
      ['a slot removed', (j) => j.slots.pop(), ['REPLICA_KEYRING']],
      ['slots reordered', (j) => j.slots.reverse(), ['REPLICA_KEYRING']],
      ['a slot renamed', (j) => Object.assign(j.slots[1]!, { id: 'k7' }), ['REPLICA_KEYRING']],
      ['all slots removed', (j) => j.slots.splice(0), ['KEY_WRONG']],
      ['the counter raised', (j) => Object.assign(j, { counter: 9 }), ['REPLICA_KEYRING']],
      ['an epoch removed', (j) => j.epochs.pop(), ['REPLICA_KEYRING']],
      ['epochs reordered', (j) => j.epochs.reverse(), ['REPLICA_KEYRING']],
      [
        'the keys of two epochs swapped',
        (j) =>
          ([j.epochs[0]!['wrapped'], j.epochs[1]!['wrapped']] = [j.epochs[1]!['wrapped'], j.epochs[0]!['wrapped']]),
        ['REPLICA_KEYRING'],
      ],
      [
        'an epoch of another keyring',
        (j) => Object.assign(j.epochs[1]!, { wrapped: json(foreign.keyring).epochs[0]!['wrapped'] }),
        ['REPLICA_KEYRING'],
      ],
      ['the MAC of another keyring', (j) => Object.assign(j, { mac: json(foreign.keyring).mac }), ['REPLICA_KEYRING']],
    ];
    it.each(ATTACKS)('is refused with %s', async (_, attack, codes) => {
      const keyring = tampered(ring.keyring, (j) => attack(j as unknown as Json));
      const error: unknown = await openKeyring(keyring, [FILE], 'k').catch((caught: unknown) => caught);
      expect(codes).toContain((error as { code?: string }).code);
      expect(() => openWithMaster(keyring, MASTER, 'k')).toThrow(expect.objectContaining({ code: 'REPLICA_KEYRING' }));
    });

    it('CONTROL: an exchanged epoch does not open even if the MAC were made for it', () => {
      const [one, two] = ring.keyring.epochs as [Keyring['epochs'][0], Keyring['epochs'][0]];
      const swapped = {
        ...ring.keyring,
        epochs: [
          { ...one, wrapped: two.wrapped },
          { ...two, wrapped: one.wrapped },
        ],
      };
      // A holder of the key signs the swap: now only the epoch's own number in its AAD is left.
      const signed = removeSlot({ ...ring, keyring: ring.keyring }, 'k2').keyring;
      expect(signed.mac).not.toEqual(ring.keyring.mac);
      expect(() => removeSlot({ ...ring, keyring: swapped }, 'k2')).toThrow(/data key of epoch 1 does not open/);
    });
  });

  it.each([
    ['another version', { version: 2 }],
    ['no epochs', { epochs: [] }],
    ['an epoch 0', { epochs: [{ epoch: 0, wrapped: '00'.repeat(72) }] }],
    ['too many slots', { slots: new Array(KEY_SLOTS_MAX + 1).fill({}) }],
    ['too many epochs', { epochs: new Array(4097).fill({}) }],
    ['a counter of 0', { counter: 0 }],
    ['a short MAC', { mac: '00' }],
  ])('is refused with %s', async (_, change) => {
    const { keyring } = await create(FILE);
    expect(() => tampered(keyring, (json) => Object.assign(json, change))).toThrow(
      expect.objectContaining({ code: 'REPLICA_KEYRING' }),
    );
  });
});
