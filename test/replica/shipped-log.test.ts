/** Shipped logs: what goes in comes out, whatever the guest did; how many requests that takes, and how many bytes. */
import { afterEach, describe, expect, it } from 'vitest';
import { type Compression, createCodec } from '../../src/chunker/codec.ts';
import type { ChangeLog, LogRange, LogWrite } from '../../src/hrl/index.ts';
import { logKey } from '../../src/replica/layout.ts';
import { readShippedLog } from '../../src/replica/shipped-log.ts';
import { type PlannedFrame, planFrames } from '../../src/replica/shipped-log-plan.ts';
import { PIECE_FIELDS } from '../../src/workers/index.ts';
import { noise, prose } from '../chunker/support.ts';
import { requests } from '../support/counting-store.ts';
import { Dice } from '../support/dice.ts';
import { apply, LogLab, type LogLabOptions } from '../support/log-lab.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

let lab: LogLab;
afterEach(() => lab.close());

function begin(options: Partial<LogLabOptions> = {}): LogLab {
  lab = new LogLab({ diskBytes: [4 * MIB, 6 * MIB], ...options });
  return lab;
}

function data(byteOffset: number, bytes: Uint8Array): LogWrite {
  return { byteOffset, bytes };
}

/** A guest that writes small and large, the same places again, zeros by data and by length. */
function guestWrites(dice: Dice, diskBytes: number): LogWrite[] {
  return Array.from({ length: dice.between(0, 40) }, (_, i) => {
    const sectors = dice.oneIn(6) ? dice.between(1, 3000) : dice.between(1, 40);
    const lengthBytes = Math.min(sectors * 512, diskBytes);
    const byteOffset = dice.below((diskBytes - lengthBytes) / 512 + 1) * 512;
    switch (dice.below(5)) {
      case 0:
        return { byteOffset, zeroBytes: lengthBytes };
      case 1:
        return data(byteOffset, new Uint8Array(lengthBytes));
      case 2:
        return data(byteOffset, noise(lengthBytes, i + 1));
      default:
        return data(byteOffset, prose(lengthBytes, i + 1));
    }
  });
}

/** Chains of logs per disk, and what they do to disks full of fives. */
async function guest(dice: Dice, sizes: readonly number[]): Promise<{ chains: ChangeLog[][]; model: Buffer[] }> {
  const model = sizes.map((size) => Buffer.alloc(size, 5));
  const chains: ChangeLog[][] = [];
  for (const [disk, size] of sizes.entries()) {
    const chain: ChangeLog[] = [];
    for (let n = dice.below(4); n > 0; n -= 1) {
      const writes = guestWrites(dice, size);
      for (const write of writes) apply(model[disk]!, write);
      chain.push(await lab.changeLog(writes, chain.at(-1)?.header.uniqueId));
    }
    chains.push(chain);
  }
  return { chains, model };
}

describe('a shipped log', () => {
  it.each([
    ['lz4', false],
    ['none', false],
    ['lz4', true],
  ] as const)('leaves what its change logs leave: compression %s, logs in memory %s', async (compression, inMemory) => {
    const sizes = [4 * MIB, 6 * MIB];
    for (let run = 0; run < 12; run += 1) {
      begin({ compression, inMemory, diskBytes: sizes });
      const { chains, model } = await guest(new Dice(1, run), sizes);
      const log = await lab.write(chains);
      const found = sizes.map((size) => Buffer.alloc(size, 5));
      if (log) await lab.play(log, found, run % 2 === 0 ? {} : { aheadBytes: 0 });
      for (const [i, content] of found.entries()) expect(content.equals(model[i]!), `run ${run}, disk ${i}`).toBe(true);
      if (run < 11) await lab.close();
    }
  });

  it('comes in order, zeros without bytes, and says how much is in it', async () => {
    begin();
    const first = await lab.changeLog([data(8192, noise(4096, 1)), data(0, noise(512, 2))]);
    const second = await lab.changeLog(
      [data(8704, new Uint8Array(512)), { byteOffset: MIB, zeroBytes: MIB }],
      first.header.uniqueId,
    );
    const other = await lab.changeLog([data(512, noise(1024, 3))]);
    const log = await lab.write([[first, second], [other]]);
    expect(log).toMatchObject({ seq: 1, frames: 1, dataBytes: 512 + 4096 - 512 + 1024 });
    const found: unknown[] = [];
    for await (const { disk, offset, lengthBytes, bytes } of readShippedLog(await lab.replica(), log!, lab.access())) {
      found.push([disk, offset, lengthBytes, bytes !== undefined]);
    }
    expect(found).toEqual([
      [0, 0, 512, true],
      [0, 8192, 512, true],
      [0, 8704, 512, false],
      [0, 9216, 3072, true],
      [0, MIB, MIB, false],
      [1, 512, 1024, true],
    ]);
  });

  it('of logs without a write does not exist', async () => {
    begin();
    requests.clear();
    expect(await lab.write([[await lab.changeLog([])], []])).toBeUndefined();
    expect(Object.fromEntries(requests)).toEqual({});
  });

  it('of zeros alone carries no data', async () => {
    begin({ diskBytes: [12 * 1024 * MIB] });
    const log = await lab.write([[await lab.changeLog([{ byteOffset: 0, zeroBytes: 12 * 1024 * MIB }])]]);
    expect(log?.dataBytes).toBe(0);
    expect(log!.sizeBytes).toBeLessThan(1024);
  });
});

describe('the requests of a shipped log', () => {
  it('of one part: one to write it, one to read it', async () => {
    begin();
    const change = await lab.changeLog([data(0, noise(64 * KIB, 1)), data(MIB, prose(4096, 1))]);
    requests.clear();
    const log = await lab.write([[change], []]);
    expect(Object.fromEntries(requests)).toEqual({ 'log put': 1 });
    requests.clear();
    await lab.play(log!, [Buffer.alloc(4 * MIB)]);
    expect(Object.fromEntries(requests)).toEqual({ 'log read': 1 });
  });

  it('of many parts: one for each, one to commit; a read for each 4 MiB', async () => {
    begin({ diskBytes: [16 * MIB], compression: 'none' });
    const writes = [0, 4, 8, 12].map((at) => data(at * MIB, noise(4 * MIB, at + 1)));
    const change = await lab.changeLog(writes);
    requests.clear();
    const log = await lab.write([[change]]);
    expect(log).toMatchObject({ frames: 16, dataBytes: 16 * MIB, sizeBytes: 16 * MIB + 16 * (64 + 16 + 4 + 16) });
    expect(Object.fromEntries(requests)).toEqual({ 'log part put': 5, 'log commit': 1 });
    requests.clear();
    const found = Buffer.alloc(16 * MIB);
    await lab.play(log!, [found]);
    expect(found.equals(Buffer.concat([1, 5, 9, 13].map((seed) => noise(4 * MIB, seed))))).toBe(true);
    expect(Object.fromEntries(requests)).toEqual({ 'log read': 5 });
  });

  it('are no more than a reader wants who stops early', async () => {
    begin({ diskBytes: [16 * MIB], compression: 'none' });
    const log = await lab.write([[await lab.changeLog([0, 4, 8, 12].map((at) => data(at * MIB, noise(4 * MIB, at))))]]);
    requests.clear();
    for await (const _ of readShippedLog(await lab.replica(), log!, lab.access({ aheadBytes: 0 }))) break;
    // One frame of 1 MiB in requests of 64 KiB, and those that were on their way.
    expect(requests.get('log read')).toBeLessThan(16 + 1 + 3 + 1);
  });

  it('fail where the reader waits for them, however slow it is', async () => {
    begin({ diskBytes: [16 * MIB], compression: 'none' });
    const log = (await lab.write([[await lab.changeLog([0, 4, 8].map((at) => data(at * MIB, noise(4 * MIB, at))))]]))!;
    const object = lab.storeFiles.get(`/store/${logKey(log)}`)!;
    object[3 * MIB + 500]! ^= 1;
    lab.storeFiles.put(`/store/${logKey(log)}`, object);
    const pieces = readShippedLog(await lab.replica(), log, lab.access());
    for (let i = 0; i < 2; i += 1) {
      expect((await pieces.next()).done).toBe(false);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await pieces.next();
    await expect(pieces.next()).rejects.toMatchObject({ code: 'REPLICA_LOG', facts: { frame: 3 } });
  });

  it('leave nothing behind when it is interrupted', async () => {
    begin({ diskBytes: [16 * MIB], compression: 'none' });
    const change = await lab.changeLog([0, 4, 8].map((at) => data(at * MIB, noise(4 * MIB, at + 1))));
    const controller = new AbortController();
    lab.onFailpoint = () => controller.abort();
    await expect(lab.write([[change]], { signal: controller.signal })).rejects.toMatchObject({ code: 'ABORTED' });
    expect(await lab.storeFiles.list('/store/logs')).toEqual([]);
  });
});

describe('frames are planned', () => {
  const file = { descriptor: 9 };
  const range = (byteOffset: number, lengthBytes: number, zero = false): LogRange =>
    ({ byteOffset, lengthBytes, log: { file }, fileOffset: byteOffset + 4096, zero, timeStamp: 0 }) as never;

  async function planned(...disks: readonly (readonly LogRange[])[]): Promise<PlannedFrame[]> {
    const frames: PlannedFrame[] = [];
    const ranges = disks.map(async function* (row) {
      yield* row;
    });
    for await (const frame of planFrames(ranges)) frames.push(frame);
    return frames;
  }

  function rows({ pieces }: PlannedFrame): number[][] {
    return Array.from({ length: pieces.length / PIECE_FIELDS }, (_, i) => [
      ...pieces.subarray(i * PIECE_FIELDS, (i + 1) * PIECE_FIELDS),
    ]);
  }

  it('full to the last sector, ranges cut where a frame ends', async () => {
    begin();
    const frames = await planned([range(0, MIB - 512), range(2 * MIB, 1024)], [range(0, 2 * MIB)]);
    expect(frames.map(rows)).toEqual([
      [
        [0, 0, MIB - 512, 9, 4096],
        [0, 2 * MIB, 512, 9, 2 * MIB + 4096],
      ],
      [
        [0, 2 * MIB + 512, 512, 9, 2 * MIB + 4608],
        [1, 0, MIB - 512, 9, 4096],
      ],
      [[1, MIB - 512, MIB, 9, MIB + 3584]],
      [[1, 2 * MIB - 512, 512, 9, 2 * MIB + 3584]],
    ]);
  });

  it('with zeros that cost nothing, but never above 4 GiB in a record', async () => {
    begin();
    const frames = await planned([range(0, 2 ** 33, true), range(2 ** 34, MIB)]);
    expect(frames.map(rows)).toEqual([
      [
        [0, 0, 0xffff_fe00, -1, 0],
        [0, 0xffff_fe00, 0xffff_fe00, -1, 0],
        [0, 2 * 0xffff_fe00, 1024, -1, 0],
        [0, 2 ** 34, MIB, 9, 2 ** 34 + 4096],
      ],
    ]);
  });

  it('with as many records as a frame takes', async () => {
    begin();
    const frames = await planned(Array.from({ length: 5000 }, (_, i) => range(i * 1024, 512, true)));
    expect(frames.map(({ pieces }) => pieces.length / PIECE_FIELDS)).toEqual([4096, 904]);
  });

  it('so that none is made of nothing', async () => {
    begin();
    expect(await planned([], [])).toEqual([]);
    expect(await planned([range(0, MIB)], [range(0, MIB)])).toHaveLength(2);
  });
});

describe('the bytes of a shipped log', () => {
  /** What the codec makes of the unique bytes alone, in pieces of 1 MiB. */
  function alone(bytes: Buffer, compression: Compression): number {
    const codec = createCodec(compression);
    let sum = 0;
    for (let at = 0; at < bytes.byteLength; at += MIB) {
      const piece = bytes.subarray(at, at + MIB);
      sum += codec.compress(piece)?.byteLength ?? piece.byteLength;
    }
    return sum;
  }

  it.each([
    ['compressible', (i: number) => prose(4096, i + 1)],
    ['incompressible', (i: number) => noise(4096, i + 1)],
    ['both', (i: number) => (i % 2 === 0 ? prose(4096, i + 1) : noise(4096, i + 1))],
  ] as const)('are at most 1.1 of the changed ones: 1,000 scattered writes of 4 KiB, %s', async (what, content) => {
    const diskBytes = 1024 * MIB;
    begin({ diskBytes: [diskBytes] });
    const dice = new Dice(7);
    const blocks = new Map<number, Buffer>();
    const writes: LogWrite[] = [];
    for (let i = 0; i < 1000; i += 1) {
      const block = dice.below(diskBytes / 4096);
      blocks.set(block, content(i));
      writes.push(data(block * 4096, blocks.get(block)!));
      // What is written again counts once.
      if (i % 10 === 0) writes.push(data(block * 4096, blocks.get(block)!));
    }
    const log = await lab.write([[await lab.changeLog(writes)]]);
    const ordered = [...blocks].sort(([a], [b]) => a - b).map(([, bytes]) => bytes);
    const reference = alone(Buffer.concat(ordered), 'lz4');
    const ratio = log!.sizeBytes / reference;
    console.info(`${what}: ${log!.sizeBytes} bytes shipped, ${reference} alone: ${ratio.toFixed(4)}`);
    expect(log?.dataBytes).toBe(blocks.size * 4096);
    expect(ratio).toBeLessThan(1.1);
  });

  it('say where they are: the name sorts by number and is not that of another try', () => {
    begin();
    const keys = [9, 10, 2 ** 53 - 1].map((seq) => logKey({ seq, id: noise(16, 1) }));
    expect([...keys].sort()).toEqual(keys);
    expect(keys[0]).toMatch(/^logs\/00000000000000000009-[0-9a-f]{32}$/);
    expect(logKey({ seq: 9, id: noise(16, 2) })).not.toBe(keys[0]);
  });
});
