/** The root record: what it says comes back, and nothing else is taken for one. */

import { createHmac } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RECOVERY_POINTS_MAX, ROOT_BYTES_MAX, SHIPPED_LOGS_MAX } from '../../src/limits.ts';
import { canonicalJson } from '../../src/replica/json.ts';
import { POINTS_KEPT, retain } from '../../src/replica/retain.ts';
import {
  type Baseline,
  isProcessed,
  logsOf,
  newestLog,
  outstandingLogs,
  type RecoveryPoint,
  type Root,
  type ShippedLog,
  SUSPECT_RANGES_MAX,
} from '../../src/replica/root.ts';
import { rootJson } from '../../src/replica/root-body.ts';
import { checkAnchor, decodeRoot, encodeRoot, rootHash } from '../../src/replica/root-record.ts';
import { noise } from '../chunker/support.ts';

const KEY = noise(32, 1);
const TABLE = { page: 3, generation: 7, epoch: 2, copy: 1, tag: noise(16, 4) } as const;
const HEAD = '2DC27766-F623-4200-9D64-115E9BFD4A08';

function log(seq: number): ShippedLog {
  return { seq, id: noise(16, seq), frames: 3, sizeBytes: 9000, dataBytes: 12_288 };
}

function baseline(generation: number, appliedLog: number): Baseline {
  return {
    generation,
    appliedLog,
    disks: [
      { tables: [TABLE], manifestSnapshot: '0001', baseSnapshots: [{ segment: 0, snapshot: '0002' }] },
      { tables: [], manifestSnapshot: '0003', baseSnapshots: [] },
    ],
  };
}

function point(generation: number, on: number, upTo: number): RecoveryPoint {
  const id = `p${generation}`;
  return { id, timeMs: 1_699_999_999_999, consistency: 'crash', generation, baseline: on, log: upTo };
}

/** Two baselines; log 3 was needed by nobody but the second. */
const ROOT: Root = {
  generation: 9,
  previous: noise(32, 2),
  description: noise(32, 3),
  keyringCounter: 4,
  timeMs: 1_700_000_000_000,
  writer: 'blockferry',
  owner: { side: noise(16, 9), epoch: 2, phase: 'failed-over', point: 'p7', sinceMs: 1_700_000_000_000 },
  disks: [
    { tables: [TABLE], head: HEAD },
    { tables: [], head: HEAD },
  ],
  baselines: [baseline(2, 0), baseline(6, 3)],
  points: [point(2, 2, 0), point(3, 2, 1), point(4, 2, 2), point(5, 6, 3), point(7, 6, 4), point(9, 6, 5)],
  logs: [log(1), log(2), log(4), log(5)],
  sync: { kind: 'resync', source: noise(32, 5), disk: 1, cursor: 1024, suspect: [{ disk: 1, from: 1024, to: 2048 }] },
};
const RECORD = Buffer.from(encodeRoot(ROOT, KEY));

type Json = Record<string, unknown>;

/** A record with a body of our choosing, authentic. */
function signed(change: (json: Json) => void): Uint8Array {
  const json: Json = { ...rootJson(ROOT) };
  change(json);
  const body = Buffer.from(canonicalJson(json as never));
  const head = Buffer.concat([RECORD.subarray(0, 8), Buffer.alloc(4)]);
  head.writeUInt32LE(body.byteLength, 8);
  const mac = createHmac('sha256', KEY).update(head).update(body).digest();
  return Buffer.concat([head, body, mac]);
}

/** The same with other points, baselines, logs or disks. */
function changed(parts: Partial<Root>): (json: Json) => void {
  return (json) => Object.assign(json, rootJson({ ...ROOT, ...parts }));
}

describe('a root record', () => {
  it('has the bytes of the format page', () => {
    expect(RECORD.subarray(0, 8).toString('latin1')).toBe('RROOT1\0\0');
    expect(RECORD.readUInt32LE(8)).toBe(RECORD.byteLength - 12 - 32);
    expect(RECORD.subarray(12, -32).toString()).toMatch(/^\{"baselines":\[\{"appliedLog":0,"disks":\[/);
  });

  it('comes back as it was, with the hash of the whole record', () => {
    const { root, hash } = decodeRoot(RECORD, KEY, 'root');
    expect(root).toEqual(ROOT);
    expect(hash).toEqual(rootHash(RECORD));
    const { sync: _, ...settled } = ROOT;
    expect(decodeRoot(encodeRoot(settled, KEY), KEY, 'root').root).toEqual(settled);
    const applying: Root = {
      ...settled,
      sync: { kind: 'apply', log: 5, begun: 3, suspect: [{ disk: 0, from: 1, to: 3 }] },
    };
    expect(decodeRoot(encodeRoot(applying, KEY), KEY, 'root').root).toEqual(applying);
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

  const { sync: _, ...SETTLED } = ROOT;
  it.each<readonly [string, RegExp, (json: Json) => void]>([
    ['generation 0', /integer from 1/, (j) => Object.assign(j, { generation: 0 })],
    ['a generation beyond what a number holds', /integer/, (j) => Object.assign(j, { generation: 2 ** 53 })],
    [
      'a copy that is none',
      /integer from 0 to 1/,
      (j) => Object.assign(j, { disks: [{ head: HEAD, tables: [{ ...TABLE, copy: 2, tag: '00'.repeat(16) }] }] }),
    ],
    [
      'a table page beyond the largest disk',
      /integer from 0 to 512/,
      changed({ disks: [{ head: HEAD, tables: [{ ...TABLE, page: 513 }] }] }),
    ],
    [
      'too many disks',
      /at most 64/,
      (j) => Object.assign(j, { disks: new Array(65).fill({ tables: [], head: HEAD }) }),
    ],
    ['a head that is no GUID', /GUID/, changed({ disks: [{ tables: [], head: HEAD.toLowerCase() }] })],
    ['too many points', /at most 4096/, changed({ points: new Array(4097).fill(ROOT.points[0]) })],
    ['too many baselines', /at most 4097/, changed({ baselines: new Array(4098).fill(ROOT.baselines[0]) })],
    ['too many logs', /at most 16384/, changed({ logs: new Array(16_385).fill(ROOT.logs[0]) })],
    [
      'another consistency',
      /one of crash, app/,
      changed({ points: [{ ...ROOT.points[0]!, consistency: 'none' as 'app' }] }),
    ],
    [
      'a kind of sync that is none',
      /one of initial/,
      changed({ sync: { kind: 'other' as 'initial', source: noise(32, 5), disk: 0, cursor: 0, suspect: [] } }),
    ],
    ['a baseline with too few disks', /one state per disk/, changed({ disks: [ROOT.disks[0]!] })],
    ['a baseline of the future', /newer than the root/, changed({ baselines: [baseline(2, 0), baseline(10, 3)] })],
    ['two baselines of one generation', /ascend/, changed({ baselines: [baseline(6, 3), baseline(6, 3)] })],
    ['a baseline that lost a log', /lacks a log/, changed({ baselines: [baseline(2, 4), baseline(6, 3)] })],
    ['two logs of one number', /ascend/, changed({ logs: [log(1), log(2), log(4), log(4), log(5)] })],
    ['a log missing behind the newest baseline', /are there/, changed({ logs: [log(1), log(2), log(5)] })],
    ['a point of the future', /newer than the root/, changed({ points: [point(10, 6, 5)] })],
    ['two points of one generation', /ascend/, changed({ points: [point(4, 6, 4), { ...point(4, 6, 5), id: 'q' }] })],
    ['two points of one id', /unique/, changed({ points: [point(4, 6, 4), { ...point(5, 6, 5), id: 'p4' }] })],
    ['a point on no baseline', /names a baseline/, changed({ points: [point(4, 3, 2)] })],
    ['a point older than its baseline', /older than its baseline/, changed({ points: [point(4, 6, 2)] })],
    ['a point whose log is missing', /names logs that exist/, changed({ points: [point(4, 2, 3)] })],
    ['a point whose earlier log is missing', /names logs that exist/, changed({ points: [point(4, 2, 5)] })],
    ['a point on a log of the future', /names logs that exist/, changed({ points: [point(4, 6, 6)] })],
    [
      'suspects of a disk that is not there',
      /disks that exist/,
      changed({ sync: { kind: 'apply', log: 5, begun: 3, suspect: [{ disk: 2, from: 0, to: 1 }] } }),
    ],
    [
      'suspects from behind',
      /disks that exist/,
      changed({ sync: { kind: 'apply', log: 5, begun: 3, suspect: [{ disk: 0, from: 1, to: 1 }] } }),
    ],
    ['an apply of what is applied', /outstanding/, changed({ sync: { kind: 'apply', log: 2, begun: 3, suspect: [] } })],
    [
      'live tables that no baseline has, and no sync',
      /tables are those/,
      (j) => {
        changed({ disks: [{ tables: [], head: HEAD }, ROOT.disks[1]!] })(j);
        delete j['sync'];
      },
    ],
    [
      'neither a baseline nor a sync',
      /there is a baseline/,
      (j) => {
        changed({ ...SETTLED, baselines: [], points: [], logs: [] })(j);
        delete j['sync'];
      },
    ],
  ])('that is authentic but has %s is refused', (_, rule, change) => {
    const decode = (): unknown => decodeRoot(signed(change), KEY, 'root');
    expect(decode).toThrow(expect.objectContaining({ code: 'REPLICA_ROOT' }));
    expect(decode).toThrow(rule);
  });

  it('that a reader would not take is not made', () => {
    const full = (parts: Partial<Root>): (() => unknown) => {
      return () => encodeRoot({ ...ROOT, ...parts }, KEY);
    };
    const points = new Array(RECOVERY_POINTS_MAX + 1).fill(ROOT.points[0]);
    expect(full({ points })).toThrow(expect.objectContaining({ code: 'REPLICA_FULL' }));
    const logs = new Array(SHIPPED_LOGS_MAX + 1).fill(ROOT.logs[0]);
    expect(full({ logs })).toThrow(/16385 shipped logs, a root holds at most 16384/);
    expect(full({ baselines: new Array(4098).fill(ROOT.baselines[0]) })).toThrow(/baselines/);
    const tables = new Array(300_000).fill(TABLE);
    expect(full({ disks: [{ tables, head: HEAD }] })).toThrow(
      new RegExp(`bytes, a root holds at most ${ROOT_BYTES_MAX}`),
    );
  });

  it('takes as many suspects as a writer may name, and no more', () => {
    const suspect = (count: number): Uint8Array =>
      signed((json) => {
        const ranges = Array.from({ length: count }, (_, i) => ({ disk: 0, from: i * 2, to: i * 2 + 1 }));
        Object.assign(json, { sync: { kind: 'apply', log: 5, begun: 3, suspect: ranges } });
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

describe('what a root says of its points', () => {
  it('logs to play over each, and which are processed', () => {
    const logs = ROOT.points.map((p) => logsOf(ROOT, p).map(({ seq }) => seq));
    expect(logs).toEqual([[], [1], [1, 2], [], [4], [4, 5]]);
    expect(ROOT.points.map((p) => isProcessed(ROOT, p))).toEqual([true, false, false, true, false, false]);
    expect(outstandingLogs(ROOT).map(({ seq }) => seq)).toEqual([4, 5]);
  });

  it('the newest log is known also when no log is left', () => {
    expect(newestLog(ROOT)).toBe(5);
    expect(newestLog({ baselines: [baseline(2, 7)], logs: [log(1)] })).toBe(7);
    expect(newestLog({ baselines: [], logs: [] })).toBe(0);
  });
});

it('what a reader would not take is not written', () => {
  const sync = { kind: 'apply' as const, log: 99, begun: 9, suspect: [] };
  expect(() => encodeRoot({ ...ROOT, sync }, KEY)).toThrow(expect.objectContaining({ code: 'REPLICA_ROOT' }));
  expect(() => encodeRoot({ ...ROOT, logs: [] }, KEY)).toThrow(expect.objectContaining({ code: 'REPLICA_ROOT' }));
});

describe('retention', () => {
  const numbers = ({ baselines, points, logs }: Pick<Root, 'baselines' | 'points' | 'logs'>) => ({
    baselines: baselines.map(({ generation }) => generation),
    points: points.map(({ generation }) => generation),
    logs: logs.map(({ seq }) => seq),
  });

  it('keeps all that points need', () => {
    expect(retain(ROOT)).toEqual({ baselines: ROOT.baselines, points: ROOT.points, logs: ROOT.logs });
  });

  it('drops logs between what a point needs and what the newest baseline has', () => {
    const { logs } = retain({ ...ROOT, points: [point(3, 2, 1), point(9, 6, 5)] });
    expect(logs.map(({ seq }) => seq)).toEqual([1, 4, 5]);
  });

  it('drops baselines without points, but not the newest and the logs over it', () => {
    expect(numbers(retain({ ...ROOT, points: [point(3, 2, 1)] }))).toEqual({
      baselines: [2, 6],
      points: [3],
      logs: [1, 4, 5],
    });
    const kept = retain({ ...ROOT, baselines: [baseline(2, 0), baseline(4, 1), baseline(6, 3)], points: [] });
    expect(numbers(kept)).toEqual({ baselines: [6], points: [], logs: [4, 5] });
  });

  it('keeps the newest points', () => {
    const points = Array.from({ length: POINTS_KEPT + 3 }, (_, i) => point(i + 10, i < 3 ? 2 : 6, i < 3 ? 2 : 5));
    const kept = numbers(retain({ ...ROOT, points }));
    expect(kept.points).toHaveLength(POINTS_KEPT);
    expect(kept.points[0]).toBe(13);
    expect(kept).toMatchObject({ baselines: [6], logs: [4, 5] });
  });

  it('keeps the point that the owner starts from, however old', () => {
    const points = Array.from({ length: POINTS_KEPT + 3 }, (_, i) => point(i + 7, 6, 4));
    const kept = numbers(retain({ ...ROOT, points }));
    expect(kept.points.slice(0, 2)).toEqual([7, 10]);
  });

  it('leaves a root that a reader takes, whatever it is given', () => {
    const some = fc.subarray([...ROOT.points], { minLength: 0 });
    fc.assert(
      fc.property(some, (points) => {
        const kept = { ...ROOT, ...retain({ ...ROOT, points }) };
        expect(decodeRoot(encodeRoot(kept, KEY), KEY, 'root').root).toEqual(kept);
      }),
    );
  });
});
