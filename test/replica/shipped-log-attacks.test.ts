/**
 * Shipped logs in the hands of somebody who may change, cut, exchange and remove the objects of a store: what is read is what
 * was shipped, or REPLICA_LOG. The controls take one protection away and show that the attack then succeeds.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { logFrameBytes } from '../../src/chunker/log-frame.ts';
import { isBlockferryError } from '../../src/errors.ts';
import type { LogWrite } from '../../src/hrl/index.ts';
import { logKey } from '../../src/replica/layout.ts';
import type { ShippedLog } from '../../src/replica/root.ts';
import { noise, prose } from '../chunker/support.ts';
import { LogLab } from '../support/log-lab.ts';

const MIB = 1024 * 1024;
const DISK = 4 * MIB;

/** A shipped log with its object. */
interface Stored {
  readonly log: ShippedLog;
  readonly object: Buffer;
}

let lab: LogLab;
let small: Stored;
/** Four frames that do not compress. */
let large: Stored;

function pathOf(log: ShippedLog): string {
  return `/store/${logKey(log)}`;
}

async function ship(
  from: LogLab,
  writes: readonly LogWrite[],
  options: { readonly seq?: number; readonly id?: Uint8Array } = {},
): Promise<Stored> {
  const log = (await from.write([[await from.changeLog(writes)]], options))!;
  return { log, object: Buffer.from(from.storeFiles.get(pathOf(log))!) };
}

const largeWrites = (salt: number): readonly LogWrite[] => [
  { byteOffset: 0, bytes: noise(3 * MIB + 512, salt) },
  { byteOffset: 3 * MIB + 1024, bytes: noise(512, salt + 1) },
];

beforeAll(async () => {
  lab = new LogLab({ diskBytes: [DISK] });
  const writes = [
    { byteOffset: 512, bytes: prose(512, 1) },
    { byteOffset: 8192, zeroBytes: 1024 },
  ];
  small = await ship(lab, writes, { seq: 3, id: noise(16, 80) });
  large = await ship(lab, largeWrites(1), { seq: 4, id: noise(16, 81) });
});
afterAll(() => lab.close());

/** What a reader gets if the store holds `object` for `log`: the disk, or undefined if it is refused. */
async function readAs(log: ShippedLog, object: Uint8Array | undefined, by: LogLab = lab): Promise<Buffer | undefined> {
  if (object) by.storeFiles.put(pathOf(log), object);
  else await by.storeFiles.remove(pathOf(log));
  const disk = Buffer.alloc(DISK);
  try {
    await by.play(log, [disk]);
    return disk;
  } catch (error) {
    if (isBlockferryError(error, 'REPLICA_LOG')) return undefined;
    throw error;
  }
}

function framesOf({ log, object }: Stored): Buffer[] {
  const frames: Buffer[] = [];
  for (let at = 0; at < object.byteLength; ) {
    const length = logFrameBytes(object.subarray(at), log.seq, frames.length);
    frames.push(object.subarray(at, at + length));
    at += length;
  }
  return frames;
}

describe('attacks on a shipped log', () => {
  it('leave it readable where nothing was changed', async () => {
    expect((await readAs(small.log, small.object))?.subarray(512, 1024).equals(prose(512, 1))).toBe(true);
    expect((await readAs(large.log, large.object))?.subarray(0, 3 * MIB).equals(noise(3 * MIB, 1))).toBe(true);
    expect(framesOf(large)).toHaveLength(4);
  });

  it('flip any bit of it, and none is accepted', async () => {
    const object = Buffer.from(small.object);
    const accepted: number[] = [];
    for (let bit = 0; bit < object.byteLength * 8; bit += 1) {
      object[bit >> 3]! ^= 1 << (bit & 7);
      if (await readAs(small.log, object)) accepted.push(bit);
      object[bit >> 3]! ^= 1 << (bit & 7);
    }
    expect(object.byteLength).toBeGreaterThan(150);
    expect(accepted).toEqual([]);
  });

  it('cut it at any length, lengthen it, empty it, remove it', async () => {
    const { log, object } = small;
    for (let length = 0; length < object.byteLength; length += 1) {
      expect(await readAs(log, object.subarray(0, length)), `${length}`).toBeUndefined();
    }
    for (const extra of [1, 80, 4096]) {
      expect(await readAs(log, Buffer.concat([object, Buffer.alloc(extra)]))).toBeUndefined();
    }
    expect(await readAs(log, undefined)).toBeUndefined();
  });

  it('exchange, repeat, drop or add frames', async () => {
    const { log } = large;
    const [a, b, c, d] = framesOf(large) as [Buffer, Buffer, Buffer, Buffer];
    for (const frames of [
      [b, a, c, d],
      [a, c, b, d],
      [a, a, c, d],
      [a, b, c, a],
      [a, b, c],
      [b, c, d],
      [a, b, c, d, d],
    ]) {
      expect(await readAs(log, Buffer.concat(frames))).toBeUndefined();
    }
  });

  it('put frames of another log, of another try with the same number, or of another replica there', async () => {
    const { log } = large;
    const other = new LogLab({ diskBytes: [DISK], replicaId: noise(16, 99) });
    const foreign = await Promise.all([
      ship(lab, largeWrites(1), { seq: 5, id: log.id }),
      ship(lab, largeWrites(1), { seq: 4, id: noise(16, 82) }),
      ship(other, largeWrites(1), { seq: 4, id: log.id }),
    ]);
    await other.close();
    for (const stored of foreign) {
      expect(await readAs(stored.log, stored.object, stored === foreign[2] ? other : lab)).toBeDefined();
      expect(await readAs(log, stored.object)).toBeUndefined();
      for (let i = 0; i < 4; i += 1) {
        const mixed = framesOf(large);
        mixed[i] = framesOf(stored)[i]!;
        expect(await readAs(log, Buffer.concat(mixed))).toBeUndefined();
      }
    }
  });

  it('name the place', async () => {
    const object = Buffer.from(large.object);
    object[framesOf(large)[0]!.byteLength + 100]! ^= 1;
    lab.storeFiles.put(pathOf(large.log), object);
    await expect(lab.play(large.log, [Buffer.alloc(DISK)])).rejects.toMatchObject({
      code: 'REPLICA_LOG',
      area: 'replica',
      facts: { log: 4, frame: 1, rule: 'authentication tag verifies' },
    });
  });
});

describe('what the root says of a log', () => {
  const lies = (change: Partial<ShippedLog>): ShippedLog => ({ ...large.log, ...change });

  it('is what the object must be', async () => {
    const { frames, sizeBytes, dataBytes } = large.log;
    for (const change of [
      { frames: frames - 1 },
      { frames: frames - 1, dataBytes: 3 * MIB },
      { frames: frames + 1 },
      { sizeBytes: sizeBytes - 1 },
      { sizeBytes: sizeBytes + 1 },
      { dataBytes: dataBytes - 512 },
      { seq: 9 },
      { id: noise(16, 83) },
    ]) {
      expect(await readAs(lies(change), large.object), JSON.stringify(change)).toBeUndefined();
    }
  });

  it('is what stops a shortened log: without its numbers the frames that are left are genuine', async () => {
    const short = framesOf(large).slice(0, 3);
    const object = Buffer.concat(short);
    expect(await readAs(large.log, object)).toBeUndefined();
    const believed = lies({ frames: 3, sizeBytes: object.byteLength, dataBytes: 3 * MIB });
    expect(await readAs(believed, object)).toBeDefined();
  });

  it('is what stops the log of another try: under its own id it is genuine', async () => {
    const other = await ship(lab, largeWrites(5), { seq: 4, id: noise(16, 84) });
    expect(await readAs(large.log, other.object)).toBeUndefined();
    expect(await readAs({ ...large.log, id: other.log.id }, other.object)).toBeDefined();
  });
});

describe('a disk that is smaller than a log says', () => {
  it('is not written beyond its end', async () => {
    const smaller = new LogLab({ diskBytes: [MIB] });
    await smaller.close();
    expect(await readAs(large.log, large.object, smaller)).toBeUndefined();
  });
});
