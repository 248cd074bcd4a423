/** The contract of src/transport/store.ts as tests, run over every store. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { PageBlob, Store } from '../../src/transport/index.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const LEASE_A = '6c1a5b1e-0d53-4d5c-9a53-2f1d7f1f0a01';
const LEASE_B = '6c1a5b1e-0d53-4d5c-9a53-2f1d7f1f0a02';

/** Opens a store on an empty place; called again it opens another one, and `reopen` the same place a second time. */
export interface ContractPlace {
  open(): Promise<Store>;
  reopen(): Promise<Store>;
  close(): Promise<void>;
}

export function filled(lengthBytes: number, value: number): Uint8Array {
  return new Uint8Array(lengthBytes).fill(value);
}

export async function collectAll<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

export function contractSuite(name: string, place: () => Promise<ContractPlace>): void {
  describe(`store contract: ${name}`, () => {
    let at: ContractPlace;
    let store: Store;

    beforeAll(async () => {
      at = await place();
    });
    afterAll(async () => {
      await at.close();
    });
    beforeEach(async () => {
      store = await at.open();
      await store.prepare();
      return async () => await store.close();
    });

    objectSuite(() => store);
    rangeSuite(() => store);
    stagingSuite(
      () => store,
      () => at.reopen(),
    );
    pageSuite(() => store);
    leaseSuite(() => store);
    snapshotSuite(
      () => store,
      () => at.reopen(),
    );
  });
}

function objectSuite(store: () => Store): void {
  describe('objects', () => {
    it('prepares a place that is already there', async () => {
      await store().prepare();
    });

    it('knows no object that was never put', async () => {
      expect(await store().get('nothing/here', 10)).toBeUndefined();
    });

    it('returns what was put, with its etag', async () => {
      const etag = await store().put('a/root', filled(1000, 7));
      const found = await store().get('a/root', 1000);
      expect(found?.etag).toBe(etag);
      expect(Buffer.from(found?.bytes ?? []).equals(filled(1000, 7))).toBe(true);
    });

    it('holds an empty object', async () => {
      await store().put('empty', new Uint8Array());
      expect((await store().get('empty', 0))?.bytes.byteLength).toBe(0);
    });

    it('refuses to return more than the reader allows', async () => {
      await store().put('big', filled(1001, 7));
      await expect(store().get('big', 1000)).rejects.toMatchObject({ code: 'STORE_REFUSED' });
    });

    it('replaces an object only if its etag matches', async () => {
      const first = await store().put('root', filled(10, 1));
      const second = await store().put('root', filled(10, 2), { ifMatch: first });
      expect(second).not.toBe(first);
      await expect(store().put('root', filled(10, 3), { ifMatch: first })).rejects.toMatchObject({
        code: 'STORE_CONDITION',
        retryable: false,
      });
      expect((await store().get('root', 10))?.bytes[0]).toBe(2);
    });

    it('creates an object only if it must not exist and does not', async () => {
      await store().put('once', filled(1, 1), { ifMatch: null });
      const again = store().put('once', filled(1, 2), { ifMatch: null });
      await expect(again).rejects.toMatchObject({ code: 'STORE_CONDITION' });
      await expect(store().put('never', filled(1, 2), { ifMatch: '"0x1"' })).rejects.toMatchObject({
        code: 'STORE_CONDITION',
      });
    });

    it('lets one of many compare-and-swaps win', async () => {
      const etag = await store().put('race', filled(8, 0));
      const results = await Promise.allSettled(
        Array.from({ length: 8 }, (_, i) => store().put('race', filled(8, i + 1), { ifMatch: etag })),
      );
      expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    });

    it('deletes, twice as well', async () => {
      await store().put('gone', filled(1, 1));
      await store().delete('gone');
      await store().delete('gone');
      expect(await store().get('gone', 10)).toBeUndefined();
    });

    it('lists keys under a prefix in order, page blobs too, snapshots not', async () => {
      for (const key of ['x/a/b', 'x/a-b', 'x/ab', 'x/a.b', 'y']) await store().put(key, filled(1, 1));
      await store().pages('x/blob').create(512, 0);
      await store().pages('x/blob').snapshot({ fence: 0 });
      expect(await collectAll(store().list('x/'))).toEqual(['x/a-b', 'x/a.b', 'x/a/b', 'x/ab', 'x/blob']);
      expect(await collectAll(store().list('x/a'))).toEqual(['x/a-b', 'x/a.b', 'x/a/b', 'x/ab']);
      expect(await collectAll(store().list('z'))).toEqual([]);
    });

    it('refuses keys that are no keys', async () => {
      for (const key of ['', '/a', 'a/', 'a//b', '../a', 'a/../b', 'A', 'a b', 'con', 'a@b', 'a.']) {
        expect(() => store().pages(key)).toThrow(RangeError);
        await expect(store().get(key, 1)).rejects.toThrow(RangeError);
      }
    });

    it('stops before it starts when the signal has fired', async () => {
      const signal = AbortSignal.abort();
      await expect(store().get('a', 1, { signal })).rejects.toMatchObject({ code: 'ABORTED' });
      await expect(store().put('a', filled(1, 1), { signal })).rejects.toMatchObject({ code: 'ABORTED' });
      await expect(store().pages('a').read(0, 1, { signal })).rejects.toMatchObject({ code: 'ABORTED' });
    });
  });
}

/** Bytes that differ everywhere: each four of them hold their own place. */
function numbered(lengthBytes: number, salt = 0): Buffer {
  const words = new Uint32Array(Math.ceil(lengthBytes / 4));
  for (let i = 0; i < words.length; i += 1) words[i] = Math.imul(i + 1, 0x9e37_79b1) ^ salt;
  return Buffer.from(words.buffer, 0, lengthBytes);
}

function rangeSuite(store: () => Store): void {
  describe('ranges of objects', () => {
    const content = numbered(9 * MIB + 123);

    it('are read wherever they lie, 4 MiB and more too', async () => {
      await store().put('logs/1', content);
      for (const [offset, length] of [
        [0, 1],
        [0, content.byteLength],
        [MIB - 1, 4 * MIB],
        [511, 4 * MIB + 2],
        [content.byteLength - 1, 1],
      ] as const) {
        const read = Buffer.from(await store().read('logs/1', offset, length));
        expect(read.equals(content.subarray(offset, offset + length))).toBe(true);
      }
    });

    it('end with the object, and have at least one byte', async () => {
      await store().put('short', filled(10, 1));
      await store().put('none', new Uint8Array());
      for (const [key, offset, length] of [
        ['short', 0, 11],
        ['short', 9, 2],
        ['short', 10, 1],
        ['short', 5000, 1],
        ['short', 0, 0],
        ['short', -1, 2],
        ['short', 0.5, 1],
        ['none', 0, 1],
      ] as const) {
        await expect(store().read(key, offset, length), `${key} ${offset} ${length}`).rejects.toThrow(RangeError);
      }
    });

    it('are refused of an object that is shorter or longer than its reader knows', async () => {
      await store().put('known', filled(100, 1));
      expect(await store().read('known', 0, 50, { sizeBytes: 100 })).toHaveLength(50);
      for (const sizeBytes of [50, 99, 101]) {
        await expect(store().read('known', 0, 50, { sizeBytes })).rejects.toThrow(RangeError);
      }
    });

    it('of an object that is not there are STORE_NOT_FOUND', async () => {
      await expect(store().read('nothing', 0, 1)).rejects.toMatchObject({ code: 'STORE_NOT_FOUND', retryable: false });
    });

    it('are of one version, whenever the object is replaced', async () => {
      const versions = [numbered(9 * MIB, 1), numbered(9 * MIB, 2)] as const;
      await store().put('moving', versions[0]);
      let read: Promise<unknown> = Promise.resolve();
      const reads: Promise<unknown>[] = [];
      for (let turn = 1; turn <= 4; turn += 1) {
        for (let i = 0; i < 3; i += 1) {
          read = store()
            .read('moving', 0, 9 * MIB)
            .then(
              (bytes) => versions.some((version) => version.equals(bytes)),
              (error: { code?: string; retryable?: boolean }) => error.code === 'STORE_CONDITION' && error.retryable,
            );
          reads.push(read);
        }
        await store().put('moving', versions[turn % 2]!);
      }
      expect(await Promise.all(reads)).toEqual(reads.map(() => true));
    });
  });
}

function stagingSuite(store: () => Store, reopen: () => Promise<Store>): void {
  describe('staged objects', () => {
    const PART = 64 * KIB;

    async function keys(): Promise<string[]> {
      return await collectAll(store().list(''));
    }

    it('become visible whole: 64 MiB, parts in any order, several at a time', async () => {
      const part = 4 * MIB;
      const content = numbered(16 * part - 777);
      const staged = store().stage('logs/large', part);
      const order = Array.from({ length: 16 }, (_, i) => (i * 7 + 15) % 16);
      for (let i = 0; i < 16; i += 4) {
        const puts = order.slice(i, i + 4).map((n) => staged.put(n, content.subarray(n * part, (n + 1) * part)));
        await Promise.all(puts);
        expect(await keys()).toEqual([]);
        expect(await store().get('logs/large', 100)).toBeUndefined();
      }
      await staged.commit(16);
      expect(await keys()).toEqual(['logs/large']);
      const other = await reopen();
      for (let at = 0; at < content.byteLength; at += 16 * MIB) {
        const length = Math.min(16 * MIB, content.byteLength - at);
        const read = Buffer.from(await other.read('logs/large', at, length));
        expect(read.equals(content.subarray(at, at + length))).toBe(true);
      }
      await other.close();
      await expect(store().read('logs/large', content.byteLength, 1)).rejects.toThrow(RangeError);
    });

    it('replace what was there with their commit, not before', async () => {
      await store().put('object', filled(3 * PART, 1));
      const staged = store().stage('object', PART);
      await staged.put(0, filled(PART, 2));
      await staged.put(1, filled(10, 3));
      expect((await store().get('object', 3 * PART))?.bytes.byteLength).toBe(3 * PART);
      await staged.commit(2);
      const there = Buffer.from((await store().get('object', 3 * PART))!.bytes);
      expect(there.equals(Buffer.concat([filled(PART, 2), filled(10, 3)]))).toBe(true);
      await store().delete('object');
      expect(await keys()).toEqual([]);
    });

    it('take the last bytes that were put as a part', async () => {
      const staged = store().stage('object', PART);
      await staged.put(0, filled(PART, 1));
      await staged.put(1, filled(20, 1));
      await staged.put(0, filled(PART, 2));
      await staged.put(1, filled(10, 2));
      await staged.commit(2);
      expect(Buffer.from((await store().get('object', 2 * PART))!.bytes).equals(filled(PART + 10, 2))).toBe(true);
    });

    it('leave out parts behind the last', async () => {
      const staged = store().stage('object', PART);
      for (let i = 0; i < 3; i += 1) await staged.put(i, filled(PART, i));
      await staged.commit(2);
      expect((await store().get('object', 3 * PART))?.bytes.byteLength).toBe(2 * PART);
    });

    it('are committed twice without harm', async () => {
      const staged = store().stage('object', PART);
      await staged.put(0, filled(100, 1));
      await staged.commit(1);
      await staged.commit(1);
      await staged.abort();
      expect(Buffer.from((await store().get('object', 100))!.bytes).equals(filled(100, 1))).toBe(true);
    });

    it('leave nothing when they are aborted, twice as well', async () => {
      await store().put('object', filled(10, 1));
      const staged = store().stage('object', PART);
      await staged.put(0, filled(PART, 2));
      await staged.abort();
      await staged.abort();
      await store().stage('other', PART).abort();
      await expect(staged.put(1, filled(PART, 2))).rejects.toThrow(TypeError);
      await expect(staged.commit(1)).rejects.toThrow(RangeError);
      expect((await store().get('object', 10))?.bytes[0]).toBe(1);
      expect(await keys()).toEqual(['object']);
    });

    it('leave the old object when their writer ends between parts and commit', async () => {
      await store().put('object', filled(10, 1));
      await store().stage('object', PART).put(0, filled(PART, 2));
      const other = await reopen();
      expect((await other.get('object', 10))?.bytes[0]).toBe(1);
      const staged = other.stage('object', 2 * PART);
      await staged.put(0, filled(2 * PART, 3));
      await staged.commit(1);
      expect(Buffer.from((await other.get('object', 2 * PART))!.bytes).equals(filled(2 * PART, 3))).toBe(true);
      await other.close();
    });

    it('never mix with another staging of the same key: the first to commit wins', async () => {
      const other = await reopen();
      const [late, early] = [store().stage('object', PART), other.stage('object', PART)];
      await Promise.all([late.put(0, filled(PART, 1)), early.put(0, filled(PART, 2)), early.put(1, filled(PART, 2))]);
      await late.put(1, filled(PART, 1));
      await early.commit(2);
      await expect(late.commit(2)).rejects.toMatchObject({ code: 'STORE_CONDITION', retryable: false });
      expect(Buffer.from((await store().get('object', 2 * PART))!.bytes).equals(filled(2 * PART, 2))).toBe(true);
      await early.commit(2);
      await late.abort();
      await other.close();
    });

    it('of different keys do not know of each other', async () => {
      const staged = ['a/object', 'a/object.2', 'a/obj'].map((key) => ({ key, object: store().stage(key, PART) }));
      for (const [i, { object }] of staged.entries()) await object.put(0, filled(100, i));
      for (const { object } of staged) await object.commit(1);
      for (const [i, { key }] of staged.entries()) expect((await store().get(key, 100))?.bytes[0]).toBe(i);
    });

    it('refuse parts that cannot be', async () => {
      const staged = store().stage('object', PART);
      for (const [index, length] of [
        [-1, 1],
        [0.5, 1],
        [50_000, 1],
        [0, 0],
        [0, PART + 1],
      ] as const) {
        await expect(staged.put(index, filled(length, 1))).rejects.toThrow(RangeError);
      }
      for (const bytes of [0, 4 * MIB + 1, 1.5]) expect(() => store().stage('object', bytes)).toThrow(RangeError);
      expect(() => store().stage('A', PART)).toThrow(RangeError);
      await staged.put(0, filled(PART - 1, 1));
      await staged.put(1, filled(PART, 1));
      for (const parts of [0, 1.5, 2, 3]) await expect(staged.commit(parts)).rejects.toThrow(RangeError);
      await staged.commit(1);
      await expect(staged.put(1, filled(1, 1))).rejects.toThrow(TypeError);
    });

    it('are put and committed only while the signal allows', async () => {
      const signal = AbortSignal.abort();
      const staged = store().stage('object', PART);
      await expect(staged.put(0, filled(1, 1), { signal })).rejects.toMatchObject({ code: 'ABORTED' });
      await staged.put(0, filled(1, 1));
      await expect(staged.commit(1, { signal })).rejects.toMatchObject({ code: 'ABORTED' });
      await expect(store().read('object', 0, 1, { signal })).rejects.toMatchObject({ code: 'ABORTED' });
      await staged.commit(1);
    });
  });
}

function pageSuite(store: () => Store): void {
  describe('page blobs', () => {
    let blob: PageBlob;

    beforeEach(async () => {
      blob = store().pages('disks/d0/base');
      await blob.create(8 * MIB, 3);
    });

    it('knows its size and fence, and that another is not there', async () => {
      expect(await blob.state()).toEqual({ sizeBytes: 8 * MIB, fence: 3 });
      expect(await store().pages('other').state()).toBeUndefined();
      await expect(store().pages('other').read(0, 512)).rejects.toMatchObject({ code: 'STORE_NOT_FOUND' });
      await expect(store().pages('other').write(filled(512, 1), 0, { fence: 0 })).rejects.toMatchObject({
        code: 'STORE_NOT_FOUND',
      });
    });

    it('is created once', async () => {
      await expect(blob.create(8 * MIB, 9)).rejects.toMatchObject({ code: 'STORE_CONDITION' });
      expect((await blob.state())?.fence).toBe(3);
    });

    it('is all zeros at first and lists no ranges', async () => {
      expect(Buffer.from(await blob.read(0, 8 * MIB)).equals(Buffer.alloc(8 * MIB))).toBe(true);
      expect(await collectAll(blob.ranges())).toEqual([]);
    });

    it('returns what was written, with the neighbours untouched', async () => {
      await blob.write(filled(1024, 5), 512, { fence: 3 });
      const read = await blob.read(0, 2048);
      expect(Buffer.from(read)).toEqual(Buffer.concat([filled(512, 0), filled(1024, 5), filled(512, 0)]));
      expect(await blob.read(513, 3)).toHaveLength(3);
    });

    it('writes a view of a larger buffer', async () => {
      const bytes = Uint8Array.from({ length: 4096 }, (_, i) => i & 0xff);
      await blob.write(bytes.subarray(512, 1536), 0, { fence: 3 });
      expect(Buffer.from(await blob.read(0, 1024)).equals(bytes.subarray(512, 1536))).toBe(true);
    });

    it('writes 4 MiB at once, at the end as well', async () => {
      await blob.write(filled(4 * MIB, 9), 4 * MIB, { fence: 3 });
      const read = Buffer.from(await blob.read(4 * MIB - 1, 4 * MIB + 1));
      expect(read[0]).toBe(0);
      expect(read.subarray(1).equals(filled(4 * MIB, 9))).toBe(true);
    });

    it('lists ranges that cover all data, ascending, apart and inside the blob', async () => {
      await blob.write(filled(512, 1), 0, { fence: 3 });
      await blob.write(filled(512, 1), 512, { fence: 3 });
      await blob.write(filled(512, 1), 8 * MIB - 512, { fence: 3 });
      const ranges = await collectAll(blob.ranges());
      expect(ranges[0]?.offset).toBe(0);
      let end = -1;
      for (const { offset, lengthBytes } of ranges) {
        expect(offset).toBeGreaterThan(end);
        end = offset + lengthBytes;
      }
      expect(end).toBe(8 * MIB);
      const later = await collectAll(blob.ranges({ fromOffset: 4 * MIB }));
      expect(later.at(-1)).toEqual(ranges.at(-1)?.offset === 0 ? later.at(-1) : ranges.at(-1));
      expect(later[0]?.offset ?? 0).toBeGreaterThanOrEqual(ranges.length > 1 ? 4 * MIB : 0);
    });

    it('clears any length and leaves the neighbours', async () => {
      await blob.write(filled(4 * MIB, 7), 0, { fence: 3 });
      await blob.write(filled(4 * MIB, 7), 4 * MIB, { fence: 3 });
      await blob.clear(512, 8 * MIB - 1024, { fence: 3 });
      const read = Buffer.from(await blob.read(0, 8 * MIB));
      expect(read.subarray(0, 512).equals(filled(512, 7))).toBe(true);
      expect(read.subarray(512, 8 * MIB - 512).equals(Buffer.alloc(8 * MIB - 1024))).toBe(true);
      expect(read.subarray(8 * MIB - 512).equals(filled(512, 7))).toBe(true);
    });

    it('refuses what is not aligned, too long, or crosses the end', async () => {
      const guard = { fence: 3 };
      for (const [length, offset] of [
        [511, 0],
        [512, 1],
        [0, 0],
        [4 * MIB + 512, 0],
        [1024, 8 * MIB - 512],
        [512, 8 * MIB],
        [512, -512],
        [512, Number.NaN],
      ] as const) {
        await expect(blob.write(filled(length, 1), offset, guard)).rejects.toThrow(RangeError);
      }
      await expect(blob.clear(0, 8 * MIB + 512, guard)).rejects.toThrow(RangeError);
      await expect(blob.clear(1, 512, guard)).rejects.toThrow(RangeError);
      await expect(blob.read(8 * MIB - 1, 2)).rejects.toThrow(RangeError);
      await expect(store().pages('n').create(513, 0)).rejects.toThrow(RangeError);
      await expect(
        store()
          .pages('n')
          .create(8 * MIB * MIB + 512, 0),
      ).rejects.toThrow(RangeError);
      await expect(blob.raiseFence(2 ** 53, undefined)).rejects.toThrow(RangeError);
      expect(Buffer.from(await blob.read(0, 8 * MIB)).equals(Buffer.alloc(8 * MIB))).toBe(true);
    });

    it('holds a write, a clear and a snapshot off that carry another fence', async () => {
      for (const fence of [2, 4]) {
        const fenced = { code: 'REPLICA_FENCED', retryable: false };
        await expect(blob.write(filled(512, 1), 0, { fence })).rejects.toMatchObject(fenced);
        await expect(blob.clear(0, 512, { fence })).rejects.toMatchObject(fenced);
        await expect(blob.snapshot({ fence })).rejects.toMatchObject(fenced);
      }
      expect(await blob.snapshots()).toEqual([]);
    });

    it('raises the fence to the higher of both', async () => {
      await blob.raiseFence(5, undefined);
      await blob.raiseFence(4, undefined);
      expect((await blob.state())?.fence).toBe(5);
      await expect(blob.write(filled(512, 1), 0, { fence: 3 })).rejects.toMatchObject({ code: 'REPLICA_FENCED' });
      await blob.write(filled(512, 1), 0, { fence: 5 });
      await blob.raiseFence(Number.MAX_SAFE_INTEGER, undefined);
      expect((await blob.state())?.fence).toBe(Number.MAX_SAFE_INTEGER);
    });

    it('takes 32 writes at once, neighbours in one granule included', async () => {
      const unit = 66_048;
      await Promise.all(Array.from({ length: 32 }, (_, i) => blob.write(filled(unit, i + 1), i * unit, { fence: 3 })));
      await blob.flush();
      const read = Buffer.from(await blob.read(0, 32 * unit));
      for (let i = 0; i < 32; i += 1) {
        expect(read.subarray(i * unit, (i + 1) * unit).equals(filled(unit, i + 1))).toBe(true);
      }
    });

    it('is removed with its snapshots, twice as well, and can be created anew, empty', async () => {
      await blob.write(filled(512, 1), 0, { fence: 3 });
      await blob.snapshot({ fence: 3 });
      await blob.remove();
      await blob.remove();
      expect(await blob.state()).toBeUndefined();
      await blob.create(1 * MIB, 0);
      expect(await blob.state()).toEqual({ sizeBytes: 1 * MIB, fence: 0 });
      expect(await blob.snapshots()).toEqual([]);
      expect(Buffer.from(await blob.read(0, 512)).equals(Buffer.alloc(512))).toBe(true);
    });
  });
}

function leaseSuite(store: () => Store): void {
  describe('leases', () => {
    let blob: PageBlob;

    beforeEach(async () => {
      blob = store().pages('leased');
      await blob.create(1 * MIB, 1);
      await blob.acquireLease(LEASE_A, 15);
    });

    it('keep everyone else from writing, raising, removing', async () => {
      const leased = { code: 'REPLICA_LEASED', retryable: false };
      for (const leaseId of [undefined, LEASE_B]) {
        const guard = leaseId === undefined ? { fence: 1 } : { fence: 1, leaseId };
        await expect(blob.write(filled(512, 1), 0, guard)).rejects.toMatchObject(leased);
        await expect(blob.clear(0, 512, guard)).rejects.toMatchObject(leased);
        await expect(blob.raiseFence(2, leaseId)).rejects.toMatchObject(leased);
        await expect(blob.remove(leaseId)).rejects.toMatchObject(leased);
      }
      await expect(blob.acquireLease(LEASE_B, 15)).rejects.toMatchObject(leased);
      await expect(blob.renewLease(LEASE_B)).rejects.toMatchObject(leased);
    });

    it('let their holder write, raise, snapshot and remove', async () => {
      const guard = { fence: 1, leaseId: LEASE_A };
      await blob.write(filled(512, 1), 0, guard);
      await blob.clear(0, 512, guard);
      await blob.snapshot(guard);
      await blob.raiseFence(2, LEASE_A);
      await blob.remove(LEASE_A);
      expect(await blob.state()).toBeUndefined();
    });

    it('are taken again by the same id, renewed and released', async () => {
      await blob.acquireLease(LEASE_A, 30);
      await blob.renewLease(LEASE_A);
      await blob.releaseLease(LEASE_A);
      await blob.releaseLease(LEASE_A);
      await blob.acquireLease(LEASE_B, 15);
      await expect(blob.renewLease(LEASE_A)).rejects.toMatchObject({ code: 'REPLICA_LEASED' });
      await blob.releaseLease(LEASE_A);
      await blob.write(filled(512, 1), 0, { fence: 1, leaseId: LEASE_B });
    });

    it('are missed by a writer that names one when there is none', async () => {
      await blob.releaseLease(LEASE_A);
      await expect(blob.write(filled(512, 1), 0, { fence: 1, leaseId: LEASE_A })).rejects.toMatchObject({
        code: 'REPLICA_LEASED',
      });
    });

    it('have a GUID and last 15 to 60 seconds', async () => {
      await expect(blob.acquireLease('me', 15)).rejects.toThrow(RangeError);
      await expect(blob.acquireLease(LEASE_A, 5)).rejects.toThrow(RangeError);
      await expect(blob.acquireLease(LEASE_A, 61)).rejects.toThrow(RangeError);
    });
  });
}

function snapshotSuite(store: () => Store, reopen: () => Promise<Store>): void {
  describe('snapshots', () => {
    const guard = { fence: 0 };
    let blob: PageBlob;

    async function first(snapshot?: string): Promise<number | undefined> {
      return (await blob.read(0, 512, snapshot === undefined ? {} : { snapshot }))[0];
    }

    beforeEach(async () => {
      blob = store().pages('snap');
      await blob.create(4 * MIB, 0);
    });

    it('keep what was there, whatever is written or cleared later', async () => {
      await blob.write(filled(1 * MIB, 1), 0, guard);
      const one = await blob.snapshot(guard);
      await blob.write(filled(66_048, 2), 512, guard);
      await blob.clear(512 * KIB, 1 * MIB, guard);
      await blob.write(filled(4096, 3), 3 * MIB, guard);
      const old = Buffer.from(await blob.read(0, 4 * MIB, { snapshot: one }));
      expect(old.subarray(0, MIB).equals(filled(MIB, 1))).toBe(true);
      expect(old.subarray(MIB).equals(Buffer.alloc(3 * MIB))).toBe(true);
      const live = Buffer.from(await blob.read(0, 4 * MIB));
      expect(live.subarray(512, 512 + 66_048).equals(filled(66_048, 2))).toBe(true);
      expect(live[512 * KIB]).toBe(0);
    });

    it('are listed oldest first and read by another client', async () => {
      const names: string[] = [];
      for (let i = 1; i <= 3; i += 1) {
        await blob.write(filled(512, i), 0, guard);
        names.push(await blob.snapshot(guard));
      }
      expect(await blob.snapshots()).toEqual(names);
      expect([...names].sort()).toEqual(names);
      const otherStore = await reopen();
      const other = otherStore.pages('snap');
      for (const [i, snapshot] of names.entries()) expect((await other.read(0, 512, { snapshot }))[0]).toBe(i + 1);
      await otherStore.close();
    });

    it.each([0, 1, 2])('leave the others whole when number %i of three is deleted', async (gone) => {
      const names: string[] = [];
      for (let i = 1; i <= 3; i += 1) {
        await blob.write(filled(512, i), 0, guard);
        await blob.write(filled(512, i), i * MIB, guard);
        names.push(await blob.snapshot(guard));
      }
      await blob.write(filled(512, 9), 0, guard);
      await blob.deleteSnapshot(names[gone] as string);
      await blob.deleteSnapshot(names[gone] as string);
      await blob.write(filled(512, 10), 2 * MIB, guard);
      for (const [i, snapshot] of names.entries()) {
        if (i === gone) {
          await expect(blob.read(0, 512, { snapshot })).rejects.toMatchObject({ code: 'STORE_NOT_FOUND' });
          continue;
        }
        expect(await first(snapshot)).toBe(i + 1);
        for (let at = 1; at <= 3; at += 1) {
          expect((await blob.read(at * MIB, 1, { snapshot }))[0]).toBe(at <= i + 1 ? at : 0);
        }
      }
      expect(await blob.snapshots()).toEqual(names.filter((_, i) => i !== gone));
      expect(await first()).toBe(9);
    });

    it('are read in any order, also those taken after a read, many at once', async () => {
      const names: string[] = [];
      for (let i = 1; i <= 4; i += 1) {
        await blob.write(filled(512, i), 0, guard);
        names.push(await blob.snapshot(guard));
        expect(await first(names[i - 1])).toBe(i);
      }
      const reads = Array.from({ length: 24 }, (_, i) => first(names[i % 4]));
      const writes = Array.from({ length: 4 }, (_, i) => blob.write(filled(512, 9), i * 66_048, guard));
      const later = blob.deleteSnapshot(names[3] as string);
      const found = await Promise.allSettled([...reads, ...writes]);
      await later;
      for (const [i, result] of found.slice(0, 24).entries()) {
        if (i % 4 < 3) expect(result).toMatchObject({ status: 'fulfilled', value: (i % 4) + 1 });
      }
    });

    it('list ranges that cover what they hold', async () => {
      await blob.write(filled(512, 1), 2 * MIB, guard);
      const snapshot = await blob.snapshot(guard);
      await blob.clear(0, 4 * MIB, guard);
      const ranges = await collectAll(blob.ranges({ snapshot }));
      expect(ranges.some((r) => r.offset <= 2 * MIB && r.offset + r.lengthBytes >= 2 * MIB + 512)).toBe(true);
    });

    it('that were never taken cannot be read', async () => {
      const snapshot = '2001-01-01T00:00:00.0000000Z';
      await expect(blob.read(0, 512, { snapshot })).rejects.toMatchObject({ code: 'STORE_NOT_FOUND' });
      await blob.deleteSnapshot(snapshot);
    });

    it('stay whole under 32 writers at once', async () => {
      await blob.write(filled(4 * MIB, 1), 0, guard);
      const snapshot = await blob.snapshot(guard);
      await Promise.all(Array.from({ length: 32 }, (_, i) => blob.write(filled(66_048, i + 2), i * 66_048, guard)));
      const old = Buffer.from(await blob.read(0, 4 * MIB, { snapshot }));
      expect(old.equals(filled(4 * MIB, 1))).toBe(true);
    });
  });
}
