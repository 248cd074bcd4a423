import { describe, expect, it } from 'vitest';
import { VHDX_REPLAY_BYTES_MAX } from '../../src/limits.ts';
import type { Layer } from '../../src/vhd/layer.ts';
import { checkVhdx, openVhdx } from '../../src/vhd/vhdx-layer.ts';
import { describeExtents, fileOf, layerContext, readLayers } from '../support/layer-content.ts';
import { memoryFileSystem } from '../support/memory-files.ts';
import {
  type BuiltVhdx,
  buildVhdx,
  LOG_GUID,
  type LogChange,
  logEntry,
  NO_GUID,
  putEntry,
  sealCrc,
  type VhdxOptions,
} from '../support/vhdx-builder.ts';

const MIB = 1024 * 1024;
const PAGE = 4096;
const LOG = MIB;
const BLOCK_MIB = 5;
const context = () => layerContext(memoryFileSystem());

/** A disk with block 0 at 5 MiB, full of 0xEE, and a log to replay. */
function dirty(options: VhdxOptions = {}): BuiltVhdx {
  const built = buildVhdx({ logGuid: LOG_GUID, bat: { 0: [6, BLOCK_MIB] }, ...options });
  const blockAt = (BLOCK_MIB + (options.logMiB ?? 1) - 1) * MIB;
  built.bytes.fill(0xee, blockAt, blockAt + MIB);
  return built;
}

/** A change of page `n` of block 0 to bytes that differ at every edge. */
function page(n: number, byte: number): LogChange {
  const bytes = Buffer.alloc(PAGE, byte);
  bytes.writeUInt8(byte ^ 0x0f, 0);
  bytes.writeUInt8(byte ^ 0xf0, PAGE - 1);
  bytes.writeUInt8(byte ^ 0x55, 8);
  bytes.writeUInt8(byte ^ 0x33, 4091);
  return { page: BLOCK_MIB * MIB + n * PAGE, bytes };
}

function zeros(n: number, count: number): LogChange {
  return { zero: BLOCK_MIB * MIB + n * PAGE, length: count * PAGE };
}

async function open(built: BuiltVhdx): Promise<Layer> {
  return openVhdx(fileOf(built.bytes), context());
}

/** What pages 0 … 7 of the disk hold, by their middle byte; and that whole pages came back byte for byte. */
async function pagesOf(built: BuiltVhdx): Promise<number[]> {
  const layer = await open(built);
  expect(layer.log).toBe('replayed');
  const content = await readLayers([layer], 0, 8 * PAGE);
  return Array.from({ length: 8 }, (_, n) => {
    const bytes = content.subarray(n * PAGE, (n + 1) * PAGE);
    const middle = bytes[2048]!;
    const whole = page(n, middle);
    if (middle !== 0 && middle !== 0xee) expect(bytes.equals('bytes' in whole ? whole.bytes : bytes)).toBe(true);
    else expect(bytes.every((byte) => byte === middle)).toBe(true);
    return middle;
  });
}

async function expectRefused(built: BuiltVhdx, code: string, text: RegExp): Promise<void> {
  const file = fileOf(built.bytes);
  await expect(openVhdx(file, context())).rejects.toMatchObject({ code });
  await expect(openVhdx(file, context())).rejects.toThrow(text);
  expect((await checkVhdx(file, context())).faults).toMatchObject([{ code }]);
}

const E = 0xee;

describe('replay of a VHDX log in memory', () => {
  it('changes pages and zeroes ranges, as extents of memory and zeros', async () => {
    const built = dirty();
    putEntry(built, 0, logEntry({ sequence: 9n, tail: 0, changes: [page(1, 0x11), zeros(3, 2), page(2, 0x22)] }));
    expect(await pagesOf(built)).toEqual([E, 0x11, 0x22, 0, 0, E, E, E]);
    expect((await describeExtents(await open(built), 512, 6 * PAGE)).slice(0, 4)).toEqual([
      `data 512+${PAGE - 512}@${BLOCK_MIB * MIB + 512}`,
      `memory ${PAGE}+${2 * PAGE}`,
      `zero ${3 * PAGE}+${2 * PAGE}`,
      `data ${5 * PAGE}+${PAGE + 512}@${BLOCK_MIB * MIB + 5 * PAGE}`,
    ]);
  });

  it('lets the newest change of a page win, over several entries and inside one', async () => {
    const built = dirty();
    const first = logEntry({
      sequence: 1n,
      tail: 0,
      changes: [page(0, 0x10), page(1, 0x11), zeros(2, 3), page(7, 0x17)],
    });
    const second = logEntry({
      sequence: 2n,
      tail: 0,
      changes: [zeros(0, 1), page(3, 0x23), page(7, 0x18), page(7, 0x27)],
    });
    putEntry(built, 0, first);
    putEntry(built, first.length, second);
    expect(await pagesOf(built)).toEqual([0, 0x11, 0, 0x23, 0, E, E, 0x27]);
  });

  it("starts at the head's tail, not at the first entry of the sequence", async () => {
    const built = dirty();
    let at = 0;
    const starts: number[] = [];
    for (let i = 0; i < 4; i += 1) {
      starts.push(at);
      const tail = i === 3 ? starts[2]! : 0;
      const entry = logEntry({ sequence: 100n + BigInt(i), tail, changes: [page(i, 0x10 + i)] });
      putEntry(built, at, entry);
      at += entry.length;
    }
    expect(await pagesOf(built)).toEqual([E, E, 0x12, 0x13, E, E, E, E]);
  });

  it('counts sequence numbers in 64 bits', async () => {
    const built = dirty();
    // As doubles, all three are equal, and so are their successors.
    const sequence = 2n ** 63n + 5n;
    putEntry(built, 0, logEntry({ sequence, tail: 0, changes: [page(0, 0x10)] }));
    putEntry(built, 2 * PAGE, logEntry({ sequence: sequence + 1n, tail: 0, changes: [page(1, 0x11)] }));
    putEntry(built, 4 * PAGE, logEntry({ sequence: sequence + 1n, tail: 4 * PAGE, changes: [page(2, 0x12)] }));
    await expectRefused(built, 'VHDX_LOG', /two log sequences/);
    putEntry(built, 4 * PAGE, logEntry({ sequence: sequence + 3n, tail: 4 * PAGE, changes: [page(2, 0x12)] }));
    expect(await pagesOf(built)).toEqual([E, E, 0x12, E, E, E, E, E]);
  });

  it('goes around the end of the ring: between entries and inside one', async () => {
    const built = dirty();
    const first = logEntry({ sequence: 7n, tail: MIB - 5 * PAGE, changes: [page(0, 0x10)] });
    const second = logEntry({
      sequence: 8n,
      tail: MIB - 5 * PAGE,
      changes: [page(1, 0x11), page(2, 0x12), page(3, 0x13), page(4, 0x14)],
    });
    const third = logEntry({ sequence: 9n, tail: MIB - 5 * PAGE, changes: [page(5, 0x15)] });
    putEntry(built, MIB - 5 * PAGE, first);
    putEntry(built, MIB - 3 * PAGE, second);
    putEntry(built, 2 * PAGE, third);
    expect(await pagesOf(built)).toEqual([0x10, 0x11, 0x12, 0x13, 0x14, 0x15, E, E]);
  });

  it.each([126, 127, 254, 255])('reads an entry of %i data descriptors', async (count) => {
    const built = dirty({ logMiB: 2, virtualSize: 8 * MIB, bat: { 0: [6, BLOCK_MIB + 1] } });
    const changes = Array.from({ length: count }, (_, i): LogChange => {
      const bytes = Buffer.alloc(PAGE, (i % 250) + 1);
      return { page: (BLOCK_MIB + 1) * MIB + i * PAGE, bytes };
    });
    putEntry(built, 0, logEntry({ sequence: 1n, tail: 0, changes }), 2);
    const content = await readLayers([await open(built)], 0, MIB);
    for (let i = 0; i < 256; i += 1) expect(content[i * PAGE + 9]).toBe(i < count ? (i % 250) + 1 : E);
  });

  it('takes an empty entry for a log with nothing to replay', async () => {
    const built = dirty();
    putEntry(built, 8 * PAGE, logEntry({ sequence: 1n, tail: 8 * PAGE }));
    expect(await pagesOf(built)).toEqual([E, E, E, E, E, E, E, E]);
  });

  it('changes what the file says of itself: region table, metadata, block table, sector bitmap', async () => {
    const parent = { parent_linkage: `{${LOG_GUID}}`, relative_path: 'p' };
    // In the log: the right tables. In the file: broken ones.
    const right = buildVhdx({ parent, bat: { 0: [7, 6], 4096: [6, 5] } });
    const broken = buildVhdx({ parent, logGuid: LOG_GUID });
    const bits = Buffer.alloc(PAGE);
    bits[0] = 0b110;
    const from = (at: number): LogChange => ({ page: at, bytes: right.bytes.subarray(at, at + PAGE) });
    const { batOffset, metadataOffset } = right;
    broken.bytes.fill(0x55, 192 * 1024, 320 * 1024);
    broken.bytes.fill(0x55, metadataOffset, metadataOffset + 2 * PAGE);
    broken.bytes.fill(0x55, batOffset, batOffset + PAGE);
    broken.bytes.fill(0x55, batOffset + 4096 * 8, batOffset + 4096 * 8 + PAGE);
    const changes: LogChange[] = [
      from(192 * 1024),
      { zero: 196 * 1024, length: 60 * 1024 },
      from(metadataOffset),
      { zero: metadataOffset + PAGE, length: PAGE },
      from(batOffset),
      from(batOffset + 4096 * 8),
      { page: 5 * MIB, bytes: bits },
    ];
    putEntry(broken, 0, logEntry({ sequence: 1n, tail: 0, changes }));
    const layer = await open(broken);
    expect(await describeExtents(layer, 0, 4 * 512)).toEqual([
      'parent 0+512',
      `data 512+1024@${6 * MIB + 512}`,
      'parent 1536+512',
    ]);
  });

  it('never writes to the source', async () => {
    const built = dirty();
    putEntry(built, 0, logEntry({ sequence: 1n, tail: 0, changes: [page(0, 0x10), zeros(1, 4)] }));
    const before = Buffer.from(built.bytes);
    await pagesOf(built);
    expect(built.bytes.equals(before)).toBe(true);
  });

  it('finds no fault in a disk whose log can be replayed', async () => {
    const built = dirty();
    putEntry(built, 0, logEntry({ sequence: 1n, tail: 0, changes: [page(0, 0x10)] }));
    expect(await checkVhdx(fileOf(built.bytes), context())).toEqual({ faults: [], notes: [] });
  });
});

describe('lengths of the file in a VHDX log', () => {
  it('extend the file: blocks beyond its end are zeros', async () => {
    const built = dirty({ virtualSize: 2 * MIB, bat: { 0: [6, BLOCK_MIB], 1: [6, 6] }, fileMiB: 6 });
    const entry = (last: number): Buffer => logEntry({ sequence: 1n, tail: 0, changes: [], last: BigInt(last) });
    putEntry(built, 0, entry(7 * MIB));
    const content = await readLayers([await open(built)], 0, 2 * MIB);
    expect([content[0], content[MIB - 1], content[MIB], content[2 * MIB - 1]]).toEqual([E, E, 0, 0]);
    putEntry(built, 0, entry(7 * MIB - 1));
    await expectRefused(built, 'VHDX_BAT', /inside the file/);
  });

  it("refuse a file that is shorter than the head's flushed length", async () => {
    const built = dirty({ fileMiB: 6 });
    putEntry(built, 0, logEntry({ sequence: 1n, tail: 0, flushed: BigInt(6 * MIB) }));
    expect((await open(built)).log).toBe('replayed');
    putEntry(built, 0, logEntry({ sequence: 1n, tail: 0, flushed: BigInt(6 * MIB + 1) }));
    await expectRefused(built, 'DISK_TRUNCATED', /flushed/);
  });

  it('count in the head only', async () => {
    const built = dirty({ fileMiB: 6 });
    putEntry(built, 0, logEntry({ sequence: 1n, tail: 0, flushed: 2n ** 60n, last: 2n ** 60n }));
    putEntry(built, PAGE, logEntry({ sequence: 2n, tail: 0, flushed: BigInt(6 * MIB) }));
    expect((await open(built)).log).toBe('replayed');
  });

  it('are refused above what a file can have', async () => {
    const built = dirty();
    putEntry(built, 0, logEntry({ sequence: 1n, tail: 0, last: 2n ** 62n }));
    await expectRefused(built, 'VHDX_LOG', /at most/);
  });
});

describe('a VHDX log entry that is not whole', () => {
  const OLD = logEntry({ sequence: 1n, tail: 0, changes: [page(0, 0x10)] });
  const NEW = { sequence: 2n, tail: 0, changes: [page(1, 0x21), page(2, 0x22), zeros(4, 1)] };
  const NEW_AT = LOG + OLD.length;

  /** An old entry, and a new one behind it that `damage` changes, before its CRC or after. */
  function torn(damage: (bytes: Buffer, at: number) => void, isSealedAfter: boolean): BuiltVhdx {
    const built = dirty();
    const entry = logEntry(NEW);
    putEntry(built, 0, OLD);
    putEntry(built, OLD.length, entry);
    damage(built.bytes, NEW_AT);
    if (isSealedAfter) sealCrc(built.bytes, NEW_AT, entry.length);
    return built;
  }

  it('is there to begin with', async () => {
    expect(await pagesOf(torn(() => {}, true))).toEqual([0x10, 0x21, 0x22, E, 0, E, E, E]);
  });

  it.each<[string, (bytes: Buffer, at: number) => void]>([
    ['a data sector that was never written', (b, at) => b.fill(0, at + PAGE, at + 2 * PAGE)],
    ['a data sector torn in its middle', (b, at) => b.fill(0, at + PAGE + 2048, at + 2 * PAGE)],
    ['a changed byte', (b, at) => b.writeUInt8(1, at + 3000)],
    ['a wrong checksum', (b, at) => b.writeUInt8(b[at + 4]! ^ 1, at + 4)],
  ])('is left out with %s, and the older sequence replayed', async (_, damage) => {
    expect(await pagesOf(torn(damage, false))).toEqual([0x10, E, E, E, E, E, E, E]);
  });

  it.each<[string, (bytes: Buffer, at: number) => void]>([
    ['the GUID of an older log', (b, at) => b.fill(0x77, at + 32, at + 48)],
    ['another signature', (b, at) => b.write('logf', at, 'latin1')],
    ['a length of no sectors', (b, at) => b.writeUInt32LE(0, at + 8)],
    ['a length that is no whole sector', (b, at) => b.writeUInt32LE(3 * PAGE + 1, at + 8)],
    ['a length above its parts', (b, at) => b.writeUInt32LE(4 * PAGE, at + 8)],
    ['a length below its parts', (b, at) => b.writeUInt32LE(2 * PAGE, at + 8)],
    ['a length above the log', (b, at) => b.writeUInt32LE(MIB + PAGE, at + 8)],
    ['more descriptors than it has room for', (b, at) => b.writeUInt32LE(0xffffffff, at + 24)],
    ['a descriptor too many', (b, at) => b.writeUInt32LE(4, at + 24)],
    ['a tail that is no sector', (b, at) => b.writeUInt32LE(12, at + 12)],
    ['a tail beyond the log', (b, at) => b.writeUInt32LE(MIB, at + 12)],
    ['sequence number 0', (b, at) => b.writeBigUInt64LE(0n, at + 16)],
    ['a descriptor of another entry', (b, at) => b.writeBigUInt64LE(1n, at + 64 + 24)],
    ['a zero descriptor of another entry', (b, at) => b.writeBigUInt64LE(1n, at + 128 + 24)],
    ['an unknown descriptor', (b, at) => b.write('note', at + 64, 'latin1')],
    ['a page off its alignment', (b, at) => b.writeBigUInt64LE(BigInt(5 * MIB + 512), at + 64 + 16)],
    ['a zero range off its alignment', (b, at) => b.writeBigUInt64LE(512n, at + 128 + 8)],
    ['a page of the headers', (b, at) => b.writeBigUInt64LE(BigInt(64 * 1024), at + 64 + 16)],
    ['a page of the log', (b, at) => b.writeBigUInt64LE(BigInt(LOG), at + 64 + 16)],
    ['zeros that reach into the log', (b, at) => b.writeBigUInt64LE(BigInt(MIB - PAGE), at + 128 + 16)],
    ['zeros past any file', (b, at) => b.writeBigUInt64LE(2n ** 64n - 4096n, at + 128 + 8)],
    ['a data sector of another entry (low half)', (b, at) => b.writeUInt32LE(1, at + PAGE + 4092)],
    ['a data sector of another entry (high half)', (b, at) => b.writeUInt32LE(1, at + PAGE + 4)],
    ['a data sector without signature', (b, at) => b.write('dato', at + PAGE, 'latin1')],
  ])('is left out with %s though its checksum is right', async (what, damage) => {
    // The range of zeros that reaches into the log needs a second page to reach.
    const built = torn((bytes, at) => {
      damage(bytes, at);
      if (what.startsWith('zeros that reach')) bytes.writeBigUInt64LE(BigInt(2 * PAGE), at + 128 + 8);
    }, true);
    expect(await pagesOf(built)).toEqual([0x10, E, E, E, E, E, E, E]);
  });

  it('ends the sequence where numbers are not one apart', async () => {
    const built = dirty();
    putEntry(built, 0, OLD);
    putEntry(built, OLD.length, logEntry({ ...NEW, sequence: 3n, tail: OLD.length }));
    expect(await pagesOf(built)).toEqual([E, 0x21, 0x22, E, 0, E, E, E]);
  });
});

describe('a VHDX log without anything to replay', () => {
  it('is no fault without a GUID, whatever the log holds', async () => {
    const built = dirty({ logGuid: NO_GUID });
    putEntry(built, 0, logEntry({ sequence: 1n, tail: 0, changes: [page(0, 0x10)] }));
    const layer = await open(built);
    expect(layer.log).toBe('clean');
    expect((await readLayers([layer], 0, 1))[0]).toBe(E);
  });

  it('is refused with a GUID', async () => {
    await expectRefused(dirty(), 'VHDX_LOG', /active sequence/);
  });

  it("is refused if the head's tail is in no sequence", async () => {
    const built = dirty();
    putEntry(built, 0, logEntry({ sequence: 5n, tail: 4 * PAGE, changes: [page(0, 0x10)] }));
    await expectRefused(built, 'VHDX_LOG', /1 valid entries but no sequence/);
  });

  it('is refused with a GUID and no length, off its alignment, or outside the file', async () => {
    const damaged = (change: (bytes: Buffer, at: number) => void): BuiltVhdx => {
      const built = dirty();
      for (const at of [64 * 1024, 128 * 1024]) {
        change(built.bytes, at);
        sealCrc(built.bytes, at, 4096);
      }
      return built;
    };
    await expectRefused(
      damaged((b, at) => b.writeUInt32LE(0, at + 68)),
      'VHDX_LOG',
      /not empty/,
    );
    await expectRefused(
      damaged((b, at) => b.writeUInt32LE(4096, at + 68)),
      'VHDX_LOG',
      /whole MiB/,
    );
    await expectRefused(
      damaged((b, at) => b.writeUInt32LE(0xfff00000, at + 68)),
      'VHDX_LOG',
      /at most/,
    );
    for (const offset of [0n, 4096n, BigInt(13 * MIB), 2n ** 64n - BigInt(MIB)]) {
      await expectRefused(
        damaged((b, at) => b.writeBigUInt64LE(offset, at + 72)),
        'VHDX_LOG',
        /behind the header section/,
      );
    }
  });
});

describe('a hostile VHDX log', () => {
  it('is read in linear time, however many entries claim all of it', async () => {
    const logMiB = 64;
    const built = dirty({ logMiB, bat: {} });
    // Every sector claims to begin an entry as long as the log, with as many descriptors as fit.
    const claim = Buffer.alloc(PAGE);
    logEntry({ sequence: 1n, tail: 0 }).copy(claim);
    claim.writeUInt32LE(logMiB * MIB, 8);
    claim.writeUInt32LE((logMiB * MIB) / 32 - 2, 24);
    for (let at = 64; at < PAGE; at += 32) {
      claim.write('zero', at, 'latin1');
      claim.writeBigUInt64LE(BigInt(4 * MIB), at + 16);
      claim.writeBigUInt64LE(1n, at + 24);
    }
    for (let at = 0; at < logMiB * MIB; at += PAGE) putEntry(built, at, claim, logMiB);
    const startedMs = performance.now();
    await expectRefused(built, 'VHDX_LOG', /active sequence/);
    // Three openings of 64 MiB; a quadratic scan would read 500 GiB.
    expect(performance.now() - startedMs).toBeLessThan(10_000);
  });

  it('cannot make zero ranges cost anything, however large and many they are', async () => {
    const built = dirty();
    const huge = { zero: 4 * MIB, length: 2 ** 52 };
    const changes = [...Array.from({ length: 20_000 }, () => huge), page(3, 0x13)];
    putEntry(built, 0, logEntry({ sequence: 1n, tail: 0, changes }));
    expect(await pagesOf(built)).toEqual([0, 0, 0, 0x13, 0, 0, 0, 0]);
  });

  it('is refused above the memory that replay may take: by pages', async () => {
    const logMiB = VHDX_REPLAY_BYTES_MAX / MIB + 2;
    const built = dirty({ logMiB, bat: {} });
    const bytes = Buffer.alloc(PAGE, 1);
    const count = VHDX_REPLAY_BYTES_MAX / PAGE;
    const entryOf = (n: number): Buffer => {
      const changes = Array.from({ length: n }, (_, i): LogChange => ({ page: 2 ** 30 + i * PAGE, bytes }));
      return logEntry({ sequence: 1n, tail: 0, changes });
    };
    putEntry(built, 0, entryOf(count), logMiB);
    expect((await open(built)).log).toBe('replayed');
    putEntry(built, 0, entryOf(count + 1), logMiB);
    await expectRefused(built, 'VHDX_LOG', /memory/);
  });

  it('is refused above the memory that replay may take: by changes', async () => {
    const logMiB = 24;
    const built = dirty({ logMiB, bat: {} });
    const changes = Array.from({ length: 700_000 }, (): LogChange => ({ zero: 2 ** 30, length: PAGE }));
    putEntry(built, 0, logEntry({ sequence: 1n, tail: 0, changes }), logMiB);
    await expectRefused(built, 'VHDX_LOG', /700000 changes/);
  });
});

describe('replay against a slow model', () => {
  it('gives the same pages as writing the changes one by one', async () => {
    let seed = 12_345;
    const next = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return (seed >>> 8) % below;
    };
    for (let round = 0; round < 40; round += 1) {
      const built = dirty();
      const model = Buffer.alloc(MIB, 0xee);
      const start = next(250) * PAGE;
      let at = start;
      for (let i = 0; i <= next(4); i += 1) {
        const changes = Array.from({ length: next(20) }, (): LogChange => {
          const n = next(24);
          return next(2) === 0 ? page(n, 1 + next(200)) : zeros(n, next(9));
        });
        for (const change of changes) {
          if ('page' in change) model.set(change.bytes, change.page - BLOCK_MIB * MIB);
          else model.fill(0, change.zero - BLOCK_MIB * MIB, change.zero - BLOCK_MIB * MIB + change.length);
        }
        const entry = logEntry({ sequence: 50n + BigInt(i), tail: start, changes });
        putEntry(built, at, entry);
        at = (at + entry.length) % MIB;
      }
      expect((await readLayers([await open(built)], 0, MIB)).equals(model)).toBe(true);
    }
  });
});
