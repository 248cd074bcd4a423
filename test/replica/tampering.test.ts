/**
 * A sealed replica in the hands of somebody without its key, who may change, move, shorten and replay anything: a
 * failover throws an error of the replica or of the key, or returns the exact bytes of a point that was committed.
 *
 * The protections, each with a CONTROL below that takes it away and sees the attack succeed:
 *
 * - a slot is opened only as its manifest entry describes it    → an older slot put back at its own place
 * - replica, disk and chunk stand in the AAD of a slot          → a slot moved to another place
 * - the root names the hash of replica.json                     → a disk made longer
 * - the root names the version of the keyring                   → a key that was removed, put back
 * - the anchor names the last root seen                         → the whole replica rolled back
 */
import { afterAll, describe, expect, it, vi } from 'vitest';
import { HEADER_BYTES, PAGE_BYTES, TAG_BYTES } from '../../src/chunker/geometry.ts';
import { SEGMENT_HEAD_BYTES } from '../../src/chunker/index.ts';
import { HEADER, RecordCipher, type RecordKind } from '../../src/chunker/record.ts';
import { BlockferryError } from '../../src/errors.ts';
import {
  type Anchor,
  type Baseline,
  baseKey,
  baselineOf,
  DESCRIPTION_KEY,
  decodeDescription,
  decodeKeyring,
  encodeRoot,
  KEYRING_KEY,
  manifestKey,
  openKeyring,
  openReplica,
  type RecoveryPoint,
  ROOT_KEY,
} from '../../src/replica/index.ts';
import { noise } from '../chunker/support.ts';
import type { CapturedStore } from '../support/captured-store.ts';
import { CHUNK } from '../support/replica-lab.ts';
import { makeTarget, restore, SLOT, Tally, type UsedSlot, usedSlots } from './sealed-target.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const target = await makeTarget();
const { lab, now, atFirstPoint, other, roots, unlock, anchor, genuine } = target;
afterAll(() => lab.close());

async function failover(store: CapturedStore, against: Anchor | undefined = undefined): Promise<void> {
  const replica = await openReplica(store.open(lab.ports), unlock, against);
  await restore(target, replica, replica.record.root.points);
}

/** Changes each of these bits alone, in place, and puts it back. */
async function flip(bytes: Buffer, offsets: Iterable<number>, attack: () => Promise<void>): Promise<Tally> {
  const tally = new Tally();
  for (const offset of offsets) {
    for (let bit = 0; bit < 8; bit += 1) {
      bytes[offset]! ^= 1 << bit;
      await tally.attempt(attack);
      bytes[offset]! ^= 1 << bit;
    }
  }
  return tally;
}

function* range(from: number, to: number, step = 1): Generator<number> {
  for (let at = from; at < to; at += step) yield at;
}

const newest = (): RecoveryPoint => genuine.record.root.points[1]!;
const newestBaseline = (): Baseline => baselineOf(genuine.record.root, newest());

describe('one flipped bit', () => {
  it.each([
    [DESCRIPTION_KEY, ['REPLICA_DESCRIPTION']],
    [KEYRING_KEY, ['KEY_WRONG', 'REPLICA_KEYRING']],
    [ROOT_KEY, ['REPLICA_ROOT']],
  ])('anywhere in %s is found before anything else is believed', async (key, codes) => {
    const bytes = now.objects.get(key)!;
    const { counts } = await flip(bytes, range(0, bytes.byteLength), () => failover(now));
    expect(Object.keys(counts).sort()).toEqual(codes);
    expect(Object.values(counts).reduce((sum, n) => sum + n, 0)).toBe(bytes.byteLength * 8);
  });

  it('in a slot, its header, ciphertext, tag or padding, is found', async () => {
    let cases = 0;
    for (const { blob, offset, clen, disk: i } of await usedSlots(target, genuine, newest())) {
      const bytes = now.blobs.get(blob)!;
      const end = offset + HEADER_BYTES + clen;
      const places = [
        ...range(offset, offset + HEADER_BYTES),
        ...range(offset + HEADER_BYTES, end, 1009),
        ...range(end, end + TAG_BYTES),
        ...range(end + TAG_BYTES, offset + Math.ceil((HEADER_BYTES + clen + TAG_BYTES) / 512) * 512, 97),
      ];
      const { counts } = await flip(bytes, places, () => restore(target, genuine, [newest()], [i]));
      expect(counts).toEqual({ REPLICA_SLOT: places.length * 8 });
      cases += places.length * 8;
    }
    expect(cases).toBeGreaterThan(4000);
  });

  it('in a page of the manifest is found', async () => {
    let cases = 0;
    for (const [i, { manifestSnapshot }] of newestBaseline().disks.entries()) {
      const bytes = now.blobs.get(`${manifestKey(`d${i}`)} ${manifestSnapshot}`)!;
      let usedPages = 0;
      for (const page of range(0, bytes.byteLength, PAGE_BYTES)) {
        const end = page + PAGE_BYTES;
        const places = [
          ...range(page, page + HEADER_BYTES),
          ...range(page + HEADER_BYTES, end, 4001),
          ...range(end - 48, end),
        ];
        const { counts } = await flip(bytes, places, () => restore(target, genuine, [newest()], [i]));
        // Of each page one copy belongs to this point; the other one is stale, and nobody reads it.
        const used = counts['REPLICA_MANIFEST'] !== undefined;
        expect(counts).toEqual({ [used ? 'REPLICA_MANIFEST' : 'genuine']: places.length * 8 });
        if (used) usedPages += 1;
        cases += places.length * 8;
      }
      expect(usedPages).toBe(2);
    }
    expect(cases).toBeGreaterThan(5000);
  });
});

describe('things put in the place of others', () => {
  it('slots of other chunks, disks, points and replicas are refused everywhere', async () => {
    const [first, last] = genuine.record.root.points as [RecoveryPoint, RecoveryPoint];
    const targets = await usedSlots(target, genuine, last);
    const sources: { slot: UsedSlot; bytes: Buffer }[] = [];
    for (const point of [first, last]) {
      for (const slot of await usedSlots(target, genuine, point))
        sources.push({ slot, bytes: now.blobs.get(slot.blob)! });
    }
    const foreign = await openReplica(other.open(lab.ports), target.otherUnlock, undefined);
    for (const slot of await usedSlots(target, foreign, foreign.record.root.points[0]!)) {
      sources.push({ slot, bytes: other.blobs.get(slot.blob)! });
    }
    const tally = new Tally();
    for (const goal of targets) {
      const place = now.blobs.get(goal.blob)!.subarray(goal.offset, goal.offset + SLOT);
      const own = Buffer.from(place);
      for (const { slot, bytes } of sources) {
        const moved = Buffer.from(bytes.subarray(slot.offset, slot.offset + SLOT));
        if (moved.equals(own)) continue;
        moved.copy(place);
        await tally.attempt(() => restore(target, genuine, [last], [goal.disk]));
        own.copy(place);
      }
    }
    expect(Object.keys(tally.counts)).toEqual(['REPLICA_SLOT']);
    expect(tally.counts['REPLICA_SLOT']).toBeGreaterThan(50);
  });

  it('a cleared slot is not taken for zeros, and a torn one not for either version', async () => {
    const tally = new Tally();
    for (const { blob, offset, clen, disk: i } of await usedSlots(target, genuine, newest())) {
      const place = now.blobs.get(blob)!.subarray(offset, offset + SLOT);
      const own = Buffer.from(place);
      const old = [...now.blobs.entries()].find(([key]) => key.startsWith(baseKey(`d${i}`, 0)) && key !== blob)![1];
      for (const cut of [0, 512, 1024, 2048, HEADER_BYTES + clen]) {
        place.fill(0, cut);
        await tally.attempt(() => restore(target, genuine, [newest()], [i]));
        own.copy(place);
        old.copy(place, 0, offset, offset + cut);
        await tally.attempt(() => restore(target, genuine, [newest()], [i]));
        own.copy(place);
      }
    }
    // Where an old slot is the same one, a mixture of both is still the slot.
    expect(Object.keys(tally.counts).sort()).toEqual(['REPLICA_SLOT', 'genuine']);
    expect(tally.counts['REPLICA_SLOT']).toBeGreaterThan(20);
  });

  it('pages of other places, points, disks and replicas are refused', async () => {
    const tally = new Tally();
    const pages: Buffer[] = [];
    for (const store of [now, atFirstPoint, other]) {
      for (const [key, bytes] of store.blobs) {
        if (!key.includes('/manifest')) continue;
        for (const at of range(0, bytes.byteLength, PAGE_BYTES))
          pages.push(Buffer.from(bytes.subarray(at, at + PAGE_BYTES)));
      }
    }
    for (const [i, { manifestSnapshot }] of newestBaseline().disks.entries()) {
      const manifest = now.blobs.get(`${manifestKey(`d${i}`)} ${manifestSnapshot}`)!;
      for (const at of range(0, manifest.byteLength, PAGE_BYTES)) {
        const place = manifest.subarray(at, at + PAGE_BYTES);
        const own = Buffer.from(place);
        for (const page of pages) {
          if (page.equals(own)) continue;
          page.copy(place);
          await tally.attempt(() => restore(target, genuine, [newest()], [i]));
          own.copy(place);
        }
      }
    }
    expect(Object.keys(tally.counts).sort()).toEqual(['REPLICA_MANIFEST', 'genuine']);
    expect(tally.counts['REPLICA_MANIFEST']).toBeGreaterThan(60);
  });

  it('the objects and blobs of another replica, or of the past, are refused or are that past', async () => {
    const outcomes: Record<string, string> = {};
    const attack = async (name: string, change: (store: CapturedStore) => void): Promise<void> => {
      const store = now.copy();
      change(store);
      const tally = new Tally();
      await tally.attempt(() => failover(store, anchor));
      outcomes[name] = Object.keys(tally.counts)[0]!;
    };
    for (const key of [DESCRIPTION_KEY, KEYRING_KEY, ROOT_KEY]) {
      await attack(`other ${key}`, (store) => store.objects.set(key, other.objects.get(key)!));
      await attack(`old ${key}`, (store) => store.objects.set(key, atFirstPoint.objects.get(key)!));
    }
    const [first, last] = genuine.record.root.baselines as [Baseline, Baseline];
    for (const i of [0, 1]) {
      const base = ({ disks }: Baseline): string => `${baseKey(`d${i}`, 0)} ${disks[i]!.baseSnapshots[0]!.snapshot}`;
      const manifest = ({ disks }: Baseline): string => `${manifestKey(`d${i}`)} ${disks[i]!.manifestSnapshot}`;
      await attack(`old base of d${i}`, (store) => store.blobs.set(base(last), store.blobs.get(base(first))!));
      await attack(`old manifest of d${i}`, (store) =>
        store.blobs.set(manifest(last), store.blobs.get(manifest(first))!),
      );
      await attack(`base of d${i} removed`, (store) => store.blobs.delete(base(last)));
      await attack(`manifest of d${i} removed`, (store) => store.blobs.delete(manifest(last)));
    }
    expect(outcomes).toEqual({
      'other replica.json': 'REPLICA_DESCRIPTION',
      'other keyring.json': 'KEY_WRONG',
      'other root': 'REPLICA_ROOT',
      'old replica.json': 'genuine',
      'old keyring.json': 'REPLICA_KEYRING',
      'old root': 'REPLICA_ROLLED_BACK',
      'old base of d0': 'REPLICA_SLOT',
      'old manifest of d0': 'REPLICA_MANIFEST',
      'base of d0 removed': 'REPLICA_SLOT',
      'manifest of d0 removed': 'REPLICA_MANIFEST',
      'old base of d1': 'REPLICA_SLOT',
      'old manifest of d1': 'REPLICA_MANIFEST',
      'base of d1 removed': 'REPLICA_SLOT',
      'manifest of d1 removed': 'REPLICA_MANIFEST',
    });
  });
});

describe('shortened and lengthened', () => {
  it('objects at every length are refused, or mean the same', async () => {
    for (const key of [DESCRIPTION_KEY, KEYRING_KEY, ROOT_KEY]) {
      const store = now.copy();
      const whole = now.objects.get(key)!;
      const tally = new Tally();
      for (let length = 0; length < whole.byteLength; length += 1) {
        store.objects.set(key, whole.subarray(0, length));
        await tally.attempt(() => failover(store));
      }
      for (const tail of ['\0', '\n', ' ', '}', '{}', 'x'.repeat(5000)]) {
        store.objects.set(key, Buffer.concat([whole, Buffer.from(tail)]));
        await tally.attempt(() => failover(store));
      }
      // Blanks behind the keyring, or its line end gone, change nothing that it says.
      expect(tally.counts['genuine'] ?? 0, key).toBe(key === KEYRING_KEY ? 3 : 0);
    }
  });

  it('blobs at every length around their slots and pages are refused', async () => {
    const tally = new Tally();
    const store = now.copy();
    const replica = await openReplica(store.open(lab.ports), unlock, anchor);
    const point = replica.record.root.points[1]!;
    for (const [i, { manifestSnapshot, baseSnapshots }] of baselineOf(replica.record.root, point).disks.entries()) {
      for (const name of [
        `${manifestKey(`d${i}`)} ${manifestSnapshot}`,
        `${baseKey(`d${i}`, 0)} ${baseSnapshots[0]!.snapshot}`,
      ]) {
        const whole = now.blobs.get(name)!;
        for (const length of range(0, whole.byteLength, 8192)) {
          store.blobs.set(name, whole.subarray(0, length));
          await tally.attempt(() => restore(target, replica, [point], [i]));
        }
        store.blobs.set(name, Buffer.concat([whole, noise(512, 1)]));
        await tally.attempt(() => restore(target, replica, [point], [i]));
        store.blobs.set(name, whole);
      }
    }
    expect(Object.keys(tally.counts).sort()).toEqual(['REPLICA_MANIFEST', 'REPLICA_SLOT', 'genuine']);
  });
});

describe('an older root', () => {
  it('is refused by whoever holds the anchor, every one of them', async () => {
    expect(roots.length).toBeGreaterThanOrEqual(6);
    const tally = new Tally();
    for (const root of roots) {
      const store = now.copy();
      store.objects.set(ROOT_KEY, root);
      await tally.attempt(() => failover(store, anchor));
    }
    expect(tally.counts).toEqual({ REPLICA_ROLLED_BACK: roots.length - 1, genuine: 1 });
  });

  it('opens without an anchor as what it is: not proven, and only genuine points', async () => {
    for (const root of roots) {
      const store = now.copy();
      store.objects.set(ROOT_KEY, root);
      const replica = await openReplica(store.open(lab.ports), unlock, undefined);
      expect(replica.freshness).toBe('not-proven');
      await restore(target, replica, replica.record.root.points);
    }
  });

  it('is refused as another one of the same generation', async () => {
    const { root } = genuine.record;
    const fork = encodeRoot({ ...root, writer: 'fork' }, genuine.keyring.keys.root);
    const store = now.copy();
    store.objects.set(ROOT_KEY, Buffer.from(fork));
    await expect(failover(store, anchor)).rejects.toMatchObject({ code: 'REPLICA_ROLLED_BACK' });
  });
});

describe('CONTROL: without its protection the attack succeeds', () => {
  /** Opens a slot by what it says of itself, as number `number`. */
  function openAsItSays(slot: Buffer, disk: number, number: number): Buffer {
    const kind: RecordKind = {
      label: 'rslot1\0\0',
      purpose: 'data',
      fault: (_, rule) => new BlockferryError('REPLICA_SLOT', rule),
    };
    const { keyring, description } = genuine;
    const cipher = new RecordCipher(kind, {
      replicaId: description.replicaId,
      diskId: description.disks[disk]!.guid,
      epochs: keyring.epochs,
      currentEpoch: keyring.currentEpoch,
      randomBytes: (n) => lab.ports.random.bytes(n),
    });
    const clen = slot.readUInt32LE(HEADER.clen);
    const end = HEADER_BYTES + clen;
    return cipher.open(slot.subarray(0, Math.ceil((end + TAG_BYTES) / 512) * 512), {
      magic: slot.readUInt32LE(HEADER.magic),
      number,
      compressionMax: 2,
      plaintextLength: slot.readUInt32LE(HEADER.plaintextLength),
      generation: Number(slot.readBigUInt64LE(HEADER.generation)),
      epoch: slot.readUInt32LE(HEADER.epoch),
      clen,
      tag: slot.subarray(end, end + TAG_BYTES),
    });
  }

  const slotOf = ({ disks }: Baseline, number: number): Buffer => {
    const bytes = now.blobs.get(`${baseKey('d0', 0)} ${disks[0]!.baseSnapshots[0]!.snapshot}`)!;
    return bytes.subarray(SEGMENT_HEAD_BYTES + number * SLOT, SEGMENT_HEAD_BYTES + (number + 1) * SLOT);
  };

  it('entry: an older slot at its own place opens', () => {
    const [first, last] = genuine.record.root.baselines as [Baseline, Baseline];
    expect(slotOf(first, 3).equals(slotOf(last, 3))).toBe(false);
    expect(openAsItSays(slotOf(first, 3), 0, 3).byteLength).toBeGreaterThan(0);
  });

  it('place: a slot opens wherever it is taken for what it was sealed as, and nowhere else', () => {
    const moved = slotOf(newestBaseline(), 0);
    expect(openAsItSays(moved, 0, 0).byteLength).toBeGreaterThan(0);
    expect(() => openAsItSays(moved, 0, 1)).toThrow(/authentication tag/);
    expect(() => openAsItSays(moved, 1, 0)).toThrow(/authentication tag/);
  });

  it('description: a longer disk would be believed', async () => {
    const text = now.objects.get(DESCRIPTION_KEY)!.toString();
    const changed = Buffer.from(text.replace(`"virtualSizeBytes":${4 * CHUNK}`, `"virtualSizeBytes":${9 * CHUNK}`));
    const store = now.copy();
    store.objects.set(DESCRIPTION_KEY, changed);
    await expect(failover(store)).rejects.toMatchObject({ code: 'REPLICA_DESCRIPTION' });
    const believed = { ...genuine, description: decodeDescription(changed, DESCRIPTION_KEY) };
    await expect(restore(target, believed, [newest()], [0])).rejects.toThrow(/ACCEPTED/);
  });

  it('keyring version: a removed key would open the replica again', async () => {
    const store = now.copy();
    store.objects.set(KEYRING_KEY, target.oldKeyring);
    const materials = [target.removedKey];
    await expect(openReplica(store.open(lab.ports), { materials }, anchor)).rejects.toMatchObject({
      code: 'REPLICA_KEYRING',
    });
    const opened = await openKeyring(decodeKeyring(target.oldKeyring, KEYRING_KEY), materials, KEYRING_KEY);
    await restore(target, { ...genuine, keyring: opened }, genuine.record.root.points);
    await expect(openReplica(now.open(lab.ports), { materials }, anchor)).rejects.toMatchObject({ code: 'KEY_WRONG' });
  });

  it('anchor: the whole store of yesterday would be taken for today', async () => {
    await expect(failover(atFirstPoint, anchor)).rejects.toMatchObject({ code: 'REPLICA_ROLLED_BACK' });
    const replica = await openReplica(atFirstPoint.open(lab.ports), unlock, undefined);
    await restore(target, replica, replica.record.root.points);
    expect(replica.record.root.points).toHaveLength(1);
  });
});
