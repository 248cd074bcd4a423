import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import type { FileSystem, Ports } from '../../src/ports.ts';
import type { CreateSpec } from '../../src/vhd/create-spec.ts';
import type { Layer } from '../../src/vhd/layer.ts';
import { checkVhdx, openVhdx } from '../../src/vhd/vhdx-layer.ts';
import { createVhdx } from '../../src/vhd/vhdx-writer.ts';
import { describeExtents, layerContext, readLayers } from '../support/layer-content.ts';
import { memoryFileSystem } from '../support/memory-files.ts';
import { missingTool } from '../support/tools.ts';
import { buildVhdx, LOG_GUID, type LogChange, logEntry, putEntry } from '../support/vhdx-builder.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const TIB = 1024 * GIB;

const scratch = mkdtempSync(join(tmpdir(), 'vhdx-writer-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Randomness that does not repeat within a test, but from run to run. */
function ports(files: FileSystem): Pick<Ports, 'files' | 'clock' | 'random'> {
  let counter = 1;
  const bytes = (lengthBytes: number) => {
    counter += 1;
    return Uint8Array.from({ length: lengthBytes }, (_, i) => (counter * 37 + i * 11) & 0xff);
  };
  return { ...nodePorts(), files, random: { bytes, fraction: () => 0.5 } };
}

function specOf(files: FileSystem, path: string, spec: Partial<CreateSpec>): CreateSpec {
  return {
    path,
    subformat: 'dynamic',
    virtualSizeBytes: 8 * MIB,
    blockSizeBytes: undefined,
    logicalSectorBytes: undefined,
    physicalSectorBytes: undefined,
    parent: undefined,
    ports: ports(files),
    ...spec,
  };
}

async function openAt(files: FileSystem, path: string): Promise<Layer> {
  const file = await files.open(path, 'read');
  expect(await checkVhdx(file, layerContext(files))).toEqual({ faults: [], notes: [] });
  return openVhdx(file, layerContext(files));
}

function parentFacts(layer: Layer, absolutePath: string, relativePath: string): NonNullable<CreateSpec['parent']> {
  const { linkId, virtualSizeBytes, logicalSectorBytes, physicalSectorBytes } = layer;
  return {
    absolutePath,
    relativePath,
    linkId,
    virtualSizeBytes,
    logicalSectorBytes,
    physicalSectorBytes,
    modifiedMs: 0,
  };
}

describe('a new VHDX', () => {
  let files: ReturnType<typeof memoryFileSystem>;
  beforeEach(() => {
    files = memoryFileSystem();
  });

  it('has one name only when it is finished', async () => {
    const writer = await createVhdx(specOf(files, '/a.vhdx', {}));
    await writer.write(Buffer.alloc(512, 1), 0);
    expect([await files.exists('/a.vhdx'), await files.exists('/a.vhdx.partial')]).toEqual([false, true]);
    await writer.finish();
    expect([await files.exists('/a.vhdx'), await files.exists('/a.vhdx.partial')]).toEqual([true, false]);
  });

  it('leaves nothing behind when aborted', async () => {
    const writer = await createVhdx(specOf(files, '/a.vhdx', {}));
    await writer.write(Buffer.alloc(512, 1), 0);
    await writer.abort();
    expect(await files.list('/')).toEqual([]);
  });

  it('is what was asked for', async () => {
    const spec = { virtualSizeBytes: 3 * GIB, blockSizeBytes: 8 * MIB, logicalSectorBytes: 4096 } as const;
    await (await createVhdx(specOf(files, '/a.vhdx', { ...spec, physicalSectorBytes: 512 }))).finish();
    expect(await openAt(files, '/a.vhdx')).toMatchObject({
      ...spec,
      subformat: 'dynamic',
      physicalSectorBytes: 512,
      log: 'clean',
    });
  });

  it.each([
    [2 * TIB, 2 * MIB],
    [2 * TIB + 512, 32 * MIB],
  ])(
    'of %i bytes has blocks of %i bytes by default, and 512/4096-byte sectors',
    async (virtualSizeBytes, blockSizeBytes) => {
      await (await createVhdx(specOf(files, '/a.vhdx', { virtualSizeBytes }))).finish();
      const expected = { blockSizeBytes, logicalSectorBytes: 512, physicalSectorBytes: 4096 };
      expect(await openAt(files, '/a.vhdx')).toMatchObject(expected);
    },
  );

  it('has both headers, both region tables and an empty log, as Windows lays them out', async () => {
    await (await createVhdx(specOf(files, '/a.vhdx', {}))).finish();
    const bytes = Buffer.from(files.get('/a.vhdx')!);
    expect(bytes.length).toBe(4 * MIB);
    expect(bytes.toString('utf16le', 8, 28)).toBe('blockferry');
    for (const at of [64 * KIB, 128 * KIB]) {
      expect(bytes.toString('latin1', at, at + 4)).toBe('head');
      expect(bytes.subarray(at + 48, at + 64).every((byte) => byte === 0)).toBe(true);
      expect([bytes.readUInt32LE(at + 68), bytes.readBigUInt64LE(at + 72)]).toEqual([MIB, BigInt(MIB)]);
    }
    expect(bytes.subarray(192 * KIB, 256 * KIB).equals(bytes.subarray(256 * KIB, 320 * KIB))).toBe(true);
    expect(bytes.subarray(MIB, 2 * MIB).every((byte) => byte === 0)).toBe(true);
    // Flags: file parameters 4, everything else about the disk 6.
    expect([0, 1, 2, 3, 4].map((i) => bytes.readUInt32LE(2 * MIB + 32 + i * 32 + 24))).toEqual([4, 6, 6, 6, 6]);
  });

  it.each([
    ['blocks of 3 MiB', { blockSizeBytes: 3 * MIB }],
    ['blocks of 512 KiB', { blockSizeBytes: 512 * KIB }],
    ['blocks of 512 MiB', { blockSizeBytes: 512 * MIB }],
    ['more than 64 TiB', { virtualSizeBytes: 64 * TIB + 512 }],
    ['half a 4 KiB sector', { virtualSizeBytes: 2048, logicalSectorBytes: 4096 as const }],
  ])('cannot have %s', async (_, spec) => {
    await expect(createVhdx(specOf(files, '/a.vhdx', spec))).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    expect(await files.list('/')).toEqual([]);
  });

  it('refuses writes outside the disk and of parts of sectors', async () => {
    const writer = await createVhdx(specOf(files, '/a.vhdx', { logicalSectorBytes: 4096 }));
    for (const [offset, lengthBytes] of [
      [8 * MIB, 4096],
      [-4096, 4096],
      [512, 4096],
      [0, 512],
      [0.5, 4096],
    ] as const) {
      await expect(writer.place(offset, lengthBytes)).rejects.toThrow(RangeError);
    }
    expect(await writer.place(4096, 0)).toEqual([]);
    await writer.abort();
  });

  it('is broken after a failed write', async () => {
    const failing: FileSystem = {
      ...files,
      open: async (path, mode) => {
        const file = await files.open(path, mode);
        return Object.assign(Object.create(file), {
          path,
          write: async () => {
            throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
          },
          read: (into: Uint8Array, at: number) => file.read(into, at),
          close: () => file.close(),
        });
      },
    };
    const writer = await createVhdx(specOf(failing, '/a.vhdx', {}));
    await expect(writer.write(Buffer.alloc(512, 1), 0)).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
    await expect(writer.finish()).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
    await writer.abort();
    expect(await files.list('/')).toEqual([]);
  });
});

describe('a dynamic VHDX that is written', () => {
  it('gives blocks their places in the order of first touch, whole, and leaves the others absent', async () => {
    const files = memoryFileSystem();
    const writer = await createVhdx(specOf(files, '/a.vhdx', { virtualSizeBytes: 9 * MIB, blockSizeBytes: 2 * MIB }));
    expect(await writer.place(8 * MIB, 512)).toMatchObject([{ fileOffset: 4 * MIB, lengthBytes: 512 }]);
    expect(await writer.place(2 * MIB - 512, 1024)).toMatchObject([{ fileOffset: 8 * MIB - 512, lengthBytes: 1024 }]);
    await writer.write(Buffer.alloc(1024, 7), 2 * MIB - 512);
    await writer.finish();
    const layer = await openAt(files, '/a.vhdx');
    expect(await describeExtents(layer)).toEqual([
      `data 0+${4 * MIB}@${6 * MIB}`,
      `parent ${4 * MIB}+${4 * MIB}`,
      `data ${8 * MIB}+${MIB}@${4 * MIB}`,
    ]);
    const content = await readLayers([layer], 2 * MIB - 1024, 2048);
    expect([content[511], content[512], content[1535], content[1536]]).toEqual([0, 7, 7, 0]);
    expect(files.get('/a.vhdx')?.byteLength).toBe(10 * MIB);
  });

  it('of 64 TiB in 1 MiB blocks costs only the pages that are touched', async () => {
    const files = nodePorts().files;
    const path = join(scratch, 'large.vhdx');
    const before = process.memoryUsage().rss;
    const writer = await createVhdx(specOf(files, path, { virtualSizeBytes: 64 * TIB, blockSizeBytes: MIB }));
    const places = Array.from({ length: 600 }, (_, i) => Math.floor((i * 64 * TIB) / 600 / MIB) * MIB);
    for (const place of places) await writer.write(Buffer.alloc(4096, 1 + (place % 251)), place);
    await writer.finish();
    expect(statSync(path).blocks * 512).toBeLessThan(600 * (64 + 4) * KIB + 2 * MIB);
    expect(process.memoryUsage().rss - before).toBeLessThan(200 * MIB);
    const layer = await openAt(files, path);
    for (const place of places.slice(0, 50)) expect((await readLayers([layer], place, 1))[0]).toBe(1 + (place % 251));
    await layer.file.close();
    rmSync(path);
  });

  it('spills its block table when more pages are touched than may be held', async () => {
    const files = memoryFileSystem();
    const spec = { virtualSizeBytes: 64 * TIB, blockSizeBytes: MIB };
    const writer = await createVhdx(specOf(files, '/a.vhdx', spec));
    // One block in each of 512 pages of the table, twice: the bound is 256 pages.
    const places = Array.from({ length: 512 }, (_, i) => i * 8192 * MIB);
    for (const place of places) await writer.place(place, 512);
    for (const place of places) await writer.place(place + 512, 512);
    await writer.finish();
    const layer = await openAt(files, '/a.vhdx');
    const data = (await describeExtents(layer)).filter((line) => line.startsWith('data'));
    expect(data).toEqual(places.map((place, i) => `data ${place}+${MIB}@${(3 + 513 + i) * MIB}`));
  });
});

describe('a fixed VHDX that is written', () => {
  it('has every block from the start, in order, over several chunks', async () => {
    const files = memoryFileSystem();
    const spec = { subformat: 'fixed', virtualSizeBytes: 33 * 256 * MIB + 512, blockSizeBytes: 256 * MIB } as const;
    const writer = await createVhdx(specOf(files, '/a.vhdx', spec));
    await writer.write(Buffer.alloc(1024, 9), 20 * 256 * MIB - 512);
    await writer.finish();
    const layer = await openAt(files, '/a.vhdx');
    expect(layer.subformat).toBe('fixed');
    expect(await describeExtents(layer)).toEqual([`data 0+${spec.virtualSizeBytes}@${4 * MIB}`]);
    expect((await readLayers([layer], 20 * 256 * MIB, 1))[0]).toBe(9);
  });

  it('has a table of several pieces where it is large', async () => {
    const files = memoryFileSystem();
    const virtualSizeBytes = 300_000 * MIB;
    const spec = { subformat: 'fixed', virtualSizeBytes, blockSizeBytes: MIB } as const;
    await (await createVhdx(specOf(files, '/a.vhdx', spec))).finish();
    expect(await describeExtents(await openAt(files, '/a.vhdx'))).toEqual([`data 0+${virtualSizeBytes}@${6 * MIB}`]);
  });
});

describe('a differencing VHDX that is written', () => {
  async function parentAt(files: FileSystem, path: string, spec: Partial<CreateSpec> = {}): Promise<Layer> {
    const writer = await createVhdx(specOf(files, path, spec));
    await writer.write(Buffer.alloc(8 * MIB, 0xaa), 0);
    await writer.finish();
    return openAt(files, path);
  }

  it('names its parent as Windows does', async () => {
    const files = memoryFileSystem();
    const parent = parentFacts(await parentAt(files, '/p.vhdx'), '/base/p.vhdx', '../base/p.vhdx');
    for (const [relativePath, written] of [
      ['p.vhdx', '.\\p.vhdx'],
      ['../base/p.vhdx', '..\\base\\p.vhdx'],
      ['sub/p.vhdx', '.\\sub\\p.vhdx'],
    ] as const) {
      const spec = { subformat: 'differencing', parent: { ...parent, relativePath } } as const;
      const path = `/child-${relativePath.length}.vhdx`;
      await (await createVhdx(specOf(files, path, spec))).finish();
      const layer = await openAt(files, path);
      expect(layer.parent).toEqual({
        paths: [
          { kind: 'relative', path: written },
          { kind: 'absolute', path: '/base/p.vhdx' },
        ],
        linkIds: [parent.linkId],
        sameSize: false,
      });
      expect(await describeExtents(layer)).toEqual([`parent 0+${8 * MIB}`]);
    }
  });

  it('keeps sectors of the parent in blocks that are partly placed, until they are whole', async () => {
    const files = memoryFileSystem();
    const parent = await parentAt(files, '/p.vhdx');
    const facts = parentFacts(parent, '/p.vhdx', 'p.vhdx');
    const spec = { subformat: 'differencing', parent: facts, blockSizeBytes: 2 * MIB } as const;
    const writer = await createVhdx(specOf(files, '/c.vhdx', spec));
    await writer.write(Buffer.alloc(1024, 1), 512);
    await writer.write(Buffer.alloc(2 * MIB, 2), 2 * MIB);
    await writer.write(Buffer.alloc(MIB, 3), 5 * MIB);
    await writer.write(Buffer.alloc(MIB, 4), 4 * MIB);
    await writer.finish();
    const layer = await openAt(files, '/c.vhdx');
    expect((await describeExtents(layer)).map((line) => line.replace(/@.*/, ''))).toEqual([
      'parent 0+512',
      'data 512+1024',
      `parent 1536+${2 * MIB - 1536}`,
      `data ${2 * MIB}+${4 * MIB}`,
      `parent ${6 * MIB}+${2 * MIB}`,
    ]);
    const bytes = Buffer.from(files.get('/c.vhdx')!);
    expect([0, 1, 2, 3].map((i) => bytes[3 * MIB + i * 8]! & 7)).toEqual([7, 6, 6, 0]);
    const content = await readLayers([layer, parent], 0, 8 * MIB);
    const expected = Buffer.alloc(8 * MIB, 0xaa);
    expected
      .fill(1, 512, 1536)
      .fill(2, 2 * MIB, 4 * MIB)
      .fill(4, 4 * MIB, 5 * MIB)
      .fill(3, 5 * MIB, 6 * MIB);
    expect(content.equals(expected)).toBe(true);
  });

  it('agrees with a plain model under many small writes, with 512 and 4096-byte sectors', async () => {
    for (const logicalSectorBytes of [512, 4096] as const) {
      const files = memoryFileSystem();
      const parent = await parentAt(files, '/p.vhdx', { logicalSectorBytes });
      const virtualSizeBytes = 8 * MIB;
      const model = Buffer.alloc(virtualSizeBytes, 0xaa);
      const spec = {
        subformat: 'differencing',
        blockSizeBytes: MIB,
        parent: parentFacts(parent, '/p.vhdx', 'p.vhdx'),
      } as const;
      const writer = await createVhdx(specOf(files, '/c.vhdx', { ...spec, virtualSizeBytes }));
      let seed = 99;
      const next = (below: number): number => {
        seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
        return (seed >>> 8) % below;
      };
      for (let i = 0; i < 60; i += 1) {
        const offset = next(virtualSizeBytes / logicalSectorBytes) * logicalSectorBytes;
        const longest = Math.min(virtualSizeBytes - offset, i % 10 === 0 ? 3 * MIB : 64 * KIB);
        const lengthBytes = (1 + next(longest / logicalSectorBytes)) * logicalSectorBytes;
        const bytes = Buffer.alloc(Math.min(lengthBytes, longest), 1 + next(200));
        await writer.write(bytes, offset);
        model.set(bytes, offset);
      }
      await writer.finish();
      const layer = await openAt(files, '/c.vhdx');
      expect((await readLayers([layer, parent], 0, virtualSizeBytes)).equals(model)).toBe(true);
    }
  });

  it('cannot have a parent with other sectors, or one that is no VHDX', async () => {
    const files = memoryFileSystem();
    const facts = parentFacts(await parentAt(files, '/p.vhdx'), '/p.vhdx', 'p.vhdx');
    for (const spec of [
      { parent: facts, logicalSectorBytes: 4096 as const },
      { parent: { ...facts, linkId: `vhd:${'0'.repeat(32)}` } },
    ]) {
      const creating = createVhdx(specOf(files, '/c.vhdx', { subformat: 'differencing', ...spec }));
      await expect(creating).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    }
  });
});

describe('other tools and VHDX', () => {
  const { files } = nodePorts();
  const run = (command: string, args: readonly string[], cwd = scratch): string =>
    execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const peersMissing = ['qemu-img', '7zz'].flatMap((command) => missingTool(command) ?? []);

  /** Content with data at both ends, on a block border and inside a block. */
  function content(sizeBytes: number): Buffer {
    const bytes = Buffer.alloc(sizeBytes);
    for (const at of [0, 4 * MIB - 512, 4 * MIB, 7 * MIB + 1536, sizeBytes - 512])
      bytes.fill(1 + (at % 250), at, at + 512);
    return bytes;
  }

  async function write(path: string, spec: Partial<CreateSpec>, bytes: Buffer): Promise<void> {
    const writer = await createVhdx(specOf(files, path, { virtualSizeBytes: bytes.length, ...spec }));
    for (let at = 0; at < bytes.length; at += 64 * KIB) {
      const piece = bytes.subarray(at, at + 64 * KIB);
      if (piece.some((byte) => byte !== 0)) await writer.write(piece, at);
    }
    await writer.finish();
  }

  function extract(path: string, cwd: string): Buffer {
    return execFileSync('7zz', ['e', '-so', path], { cwd, maxBuffer: 256 * MIB, stdio: ['ignore', 'pipe', 'pipe'] });
  }

  it.skipIf(peersMissing.length > 0).each<[string, Partial<CreateSpec>, number]>([
    ['dynamic', {}, 16 * MIB],
    ['dynamic, 1 MiB blocks, a last block of 1 KiB', { blockSizeBytes: MIB }, 12 * MIB + 1024],
    ['dynamic, 256 MiB blocks', { blockSizeBytes: 256 * MIB }, 16 * MIB],
    ['fixed', { subformat: 'fixed' }, 16 * MIB],
    ['fixed, a last block that is cut', { subformat: 'fixed', blockSizeBytes: 32 * MIB }, 33 * MIB + 1024],
  ])('read ours: %s', async (_, spec, sizeBytes) => {
    const path = join(scratch, 'ours.vhdx');
    const bytes = content(sizeBytes);
    await write(path, spec, bytes);
    try {
      expect(run('qemu-img', ['check', '-f', 'vhdx', path])).toMatch(/No errors/);
      run('qemu-img', ['convert', '-f', 'vhdx', '-O', 'raw', path, 'ours.raw']);
      expect(readFileSync(join(scratch, 'ours.raw')).equals(bytes)).toBe(true);
      expect(extract(path, scratch).equals(bytes)).toBe(true);
    } finally {
      rmSync(path);
    }
  });

  it.skipIf(peersMissing.length > 0)('read ours: differencing, over a parent in the same folder (7zz)', async () => {
    const folder = join(scratch, 'chain');
    mkdirSync(folder);
    const base = content(16 * MIB);
    await write(join(folder, 'base.vhdx'), { blockSizeBytes: 4 * MIB }, base);
    const parent = await openAt(files, join(folder, 'base.vhdx'));
    const facts = parentFacts(parent, join(folder, 'base.vhdx'), 'base.vhdx');
    const spec = { subformat: 'differencing', parent: facts, virtualSizeBytes: base.length } as const;
    const writer = await createVhdx(specOf(files, join(folder, 'child.vhdx'), spec));
    for (const [offset, lengthBytes] of [
      [512, 512],
      [4 * MIB - 1024, 2048],
      [6 * MIB, 2 * MIB],
      [15 * MIB, 1536],
    ] as const) {
      const bytes = Buffer.alloc(lengthBytes, 0xc7);
      await writer.write(bytes, offset);
      base.set(bytes, offset);
    }
    await writer.finish();
    await parent.file.close();
    expect(extract('child.vhdx', folder).equals(base)).toBe(true);
  });

  it.skipIf(peersMissing.length > 0).each([
    ['dynamic', ['subformat=dynamic,block_size=1M'], 20 * MIB + 512],
    ['dynamic without zero states', ['subformat=dynamic,block_state_zero=off'], 20 * MIB],
    ['fixed', ['subformat=fixed,block_size=2M'], 20 * MIB],
    ['with a log of 4 MiB', ['log_size=4M,block_size=8M'], 20 * MIB],
  ])('write what we read: qemu-img, %s', async (_, options, sizeBytes) => {
    const bytes = content(sizeBytes);
    writeFileSync(join(scratch, 'theirs.raw'), bytes);
    const path = join(scratch, 'theirs.vhdx');
    run('qemu-img', ['convert', '-f', 'raw', '-O', 'vhdx', '-o', options.join(), 'theirs.raw', path]);
    const layer = await openAt(files, path);
    expect((await readLayers([layer], 0, sizeBytes)).equals(bytes)).toBe(true);
    await layer.file.close();
    rmSync(path);
  });

  // qemu compares sequences by their first entries and reads only one sector of descriptors: so no sequence that goes
  // around the end of the ring, and no entry with more than 126 changes.
  it.skipIf(peersMissing.length > 0).each([
    ['a sequence of entries', 8 * 4096, 3],
    ['an entry around the end of the ring', MIB - 2 * 4096, 1],
  ])('replay a log as we do: qemu-img check -r all on a copy, %s', async (_, start, count) => {
    const built = buildVhdx({ logGuid: LOG_GUID, bat: { 0: [6, 5], 1: [6, 6] } });
    built.bytes.fill(0xee, 5 * MIB, 7 * MIB);
    const page = (n: number): LogChange => ({ page: 5 * MIB + n * 4096, bytes: Buffer.alloc(4096, n + 1) });
    const many = Array.from({ length: 120 }, (_, i) => page(i + 40));
    const entries = [
      [page(0), page(3), page(12), page(13)],
      [...many, page(4)],
      [{ zero: 5 * MIB + 3 * 4096, length: 8 * 4096 }, page(5)],
    ].slice(0, count);
    let at = start;
    for (const [i, changes] of entries.entries()) {
      const last = BigInt(built.bytes.length);
      const entry = logEntry({ sequence: 77n + BigInt(i), tail: start, changes, flushed: last, last });
      putEntry(built, at, entry);
      at = (at + entry.length) % MIB;
    }
    const path = join(scratch, 'dirty.vhdx');
    writeFileSync(path, built.bytes);
    const layer = await openAt(files, path);
    expect(layer.log).toBe('replayed');
    const ours = await readLayers([layer], 0, 4 * MIB);
    await layer.file.close();
    run('qemu-img', ['check', '-f', 'vhdx', '-r', 'all', path]);
    run('qemu-img', ['convert', '-f', 'vhdx', '-O', 'raw', path, 'dirty.raw']);
    expect(ours.equals(readFileSync(join(scratch, 'dirty.raw')))).toBe(true);
    expect(ours[0]).toBe(1);
  });
});
