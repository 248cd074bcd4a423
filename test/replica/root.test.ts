/** The root record: what it says comes back, and nothing else is taken for one. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  checkAnchor,
  decodeRoot,
  encodeRoot,
  type Root,
  rootHash,
  SUSPECT_RANGES_MAX,
} from '../../src/replica/root.ts';
import { noise } from '../chunker/support.ts';

const KEY = noise(32, 1);
const TABLE = { page: 3, generation: 7, epoch: 2, copy: 1, tag: noise(16, 4) } as const;
const ROOT: Root = {
  generation: 9,
  previous: noise(32, 2),
  description: noise(32, 3),
  keyringCounter: 4,
  timeMs: 1_700_000_000_000,
  writer: 'blockferry',
  disks: [{ tables: [TABLE, { ...TABLE, page: 4, copy: 0 }] }, { tables: [] }],
  points: [
    {
      id: 'p8',
      timeMs: 1_699_999_999_999,
      consistency: 'crash',
      generation: 8,
      disks: [
        { tables: [TABLE], manifestSnapshot: '0001', baseSnapshots: [{ segment: 0, snapshot: '0002' }] },
        { tables: [], manifestSnapshot: '0003', baseSnapshots: [] },
      ],
    },
  ],
  sync: { kind: 'resync', source: noise(32, 5), disk: 1, cursor: 1024, suspect: [{ disk: 1, from: 1024, to: 2048 }] },
};
const RECORD = Buffer.from(encodeRoot(ROOT, KEY));

/** A record with a body of our choosing, authentic. */
function signed(change: (json: Record<string, unknown>) => void): Uint8Array {
  // The encoder writes what it is given: fields of a Root that no reader may take.
  const json = { ...ROOT } as unknown as Record<string, unknown>;
  change(json);
  return encodeRoot(json as unknown as Root, KEY);
}

describe('a root record', () => {
  it('has the bytes of the format page', () => {
    expect(RECORD.subarray(0, 8).toString('latin1')).toBe('RROOT1\0\0');
    expect(RECORD.readUInt32LE(8)).toBe(RECORD.byteLength - 12 - 32);
    expect(RECORD.subarray(12, -32).toString()).toMatch(/^\{"description":"[0-9a-f]{64}","disks":\[/);
  });

  it('comes back as it was, with the hash of the whole record', () => {
    const { root, hash } = decodeRoot(RECORD, KEY, 'root');
    expect(root).toEqual(ROOT);
    expect(hash).toEqual(rootHash(RECORD));
    const { sync: _, ...settled } = ROOT;
    expect(decodeRoot(encodeRoot(settled, KEY), KEY, 'root').root).toEqual(settled);
  });

  it('with any byte changed, and under another key, is refused', () => {
    for (let at = 0; at < RECORD.byteLength; at += 1) {
      for (const flip of [1, 0x80, 0xff]) {
        RECORD[at]! ^= flip;
        expect(() => decodeRoot(RECORD, KEY, 'root')).toThrow(expect.objectContaining({ code: 'REPLICA_ROOT' }));
        RECORD[at]! ^= flip;
      }
    }
    expect(() => decodeRoot(RECORD, noise(32, 9), 'root')).toThrow(/HMAC verifies/);
  });

  it('of any other length is refused', () => {
    for (let length = 0; length < RECORD.byteLength; length += 1) {
      expect(() => decodeRoot(RECORD.subarray(0, length), KEY, 'root')).toThrow(
        expect.objectContaining({ code: 'REPLICA_ROOT' }),
      );
    }
    for (const tail of [1, 31, 32, 33, 5000]) {
      expect(() => decodeRoot(Buffer.concat([RECORD, Buffer.alloc(tail)]), KEY, 'root')).toThrow(/body length agrees/);
    }
  });

  it.each<readonly [string, (json: Record<string, unknown>) => void]>([
    ['generation 0', (j) => Object.assign(j, { generation: 0 })],
    ['a generation beyond what a number holds', (j) => Object.assign(j, { generation: 2 ** 53 })],
    ['a copy that is none', (j) => Object.assign(j, { disks: [{ tables: [{ ...TABLE, copy: 2 }] }] })],
    [
      'a table page beyond the largest disk',
      (j) => Object.assign(j, { disks: [{ tables: [{ ...TABLE, page: 513 }] }] }),
    ],
    ['too many disks', (j) => Object.assign(j, { disks: new Array(65).fill({ tables: [] }) })],
    ['too many points', (j) => Object.assign(j, { points: new Array(4097).fill(ROOT.points[0]) })],
    ['another consistency', (j) => Object.assign(j, { points: [{ ...ROOT.points[0], consistency: 'none' }] })],
    ['a kind of sync that is none', (j) => Object.assign(j, { sync: { ...ROOT.sync, kind: 'other' } })],
  ])('that is authentic but has %s is refused', (_, change) => {
    expect(() => decodeRoot(signed(change), KEY, 'root')).toThrow(expect.objectContaining({ code: 'REPLICA_ROOT' }));
  });

  it('takes as many suspects as a writer may name, and no more', () => {
    const suspect = (count: number): Uint8Array =>
      signed((json) => {
        const ranges = Array.from({ length: count }, (_, i) => ({ disk: 0, from: i * 2, to: i * 2 + 1 }));
        Object.assign(json, { sync: { ...ROOT.sync, suspect: ranges } });
      });
    expect(decodeRoot(suspect(SUSPECT_RANGES_MAX), KEY, 'root').root.sync?.suspect).toHaveLength(SUSPECT_RANGES_MAX);
    expect(() => decodeRoot(suspect(SUSPECT_RANGES_MAX + 1), KEY, 'root')).toThrow(/at most 1024/);
  });

  it('never throws anything but its own error, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(() => decodeRoot(bytes, KEY, 'root')).toThrow(expect.objectContaining({ code: 'REPLICA_ROOT' }));
      }),
    );
  });
});

describe('an anchor', () => {
  const record = decodeRoot(RECORD, KEY, 'root');
  it('takes the root it names and any newer one', () => {
    checkAnchor(record, { generation: 9, hash: record.hash }, 'root');
    checkAnchor(record, { generation: 8, hash: noise(32, 8) }, 'root');
  });

  it.each([
    ['an older root', { generation: 10, hash: record.hash }],
    ['another root of the same generation', { generation: 9, hash: noise(32, 8) }],
  ])('refuses %s', (_, anchor) => {
    expect(() => checkAnchor(record, anchor, 'root')).toThrow(expect.objectContaining({ code: 'REPLICA_ROLLED_BACK' }));
  });
});
