/** The plan of a sync against an oracle that looks at every sector. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { RandomAccessFile } from '../../src/ports.ts';
import { chunkRuns, joinRuns, runsWithin } from '../../src/replica/chunk-runs.ts';
import { packRanges } from '../../src/replica/pack-ranges.ts';
import { dataBytes, type PlanWindow, planWindows } from '../../src/replica/sync-plan.ts';
import type { Extent, VirtualDisk } from '../../src/vhd/index.ts';
import { RANGE_FIELDS } from '../../src/workers/index.ts';

const SECTOR = 512;
/** Small "chunks", so that an oracle per sector is quick. */
const CHUNK = 4 * SECTOR;
const file = { path: 'f', descriptor: 7 } as RandomAccessFile;

type Kind = Extent['kind'];

/** A disk from one letter per sector; each sector's place in the file is its number, in sectors, plus 1000. */
function disk(sectors: readonly Kind[]): VirtualDisk {
  const extents = async function* (offset: number, lengthBytes: number): AsyncGenerator<Extent> {
    for (let at = offset; at < offset + lengthBytes; ) {
      const kind = sectors[at / SECTOR]!;
      let end = at + SECTOR;
      while (end < offset + lengthBytes && sectors[end / SECTOR] === kind) end += SECTOR;
      const range = { offset: at, lengthBytes: end - at, depth: 0 };
      if (kind === 'data') yield { kind, ...range, file, fileOffset: at + 1000 * SECTOR };
      else if (kind === 'memory')
        yield { kind, ...range, bytes: Uint8Array.from({ length: end - at }, (_, i) => (at + i) / SECTOR) };
      else yield { kind, ...range };
      at = end;
    }
  };
  return { info: { virtualSizeBytes: sectors.length * SECTOR }, extents } as unknown as VirtualDisk;
}

async function all(windows: AsyncIterable<PlanWindow>): Promise<PlanWindow[]> {
  const list: PlanWindow[] = [];
  for await (const window of windows) list.push(window);
  return list;
}

const kinds = fc.constantFrom<Kind>('data', 'data', 'absent', 'zero', 'memory');
const layouts = fc
  .array(fc.tuple(kinds, fc.integer({ min: 1, max: 9 })), { minLength: 1, maxLength: 12 })
  .map((runs) => runs.flatMap(([kind, count]) => new Array<Kind>(count).fill(kind)));

describe('the plan of a sync', () => {
  it('has each chunk once, in order, as data exactly if a sector of it is, with exactly its places', async () => {
    await fc.assert(
      fc.asyncProperty(layouts, fc.integer({ min: 1, max: 4 }), fc.nat(8), async (sectors, windowMax, skip) => {
        const chunks = Math.ceil((sectors.length * SECTOR) / CHUNK);
        const first = Math.min(skip, chunks);
        const plan = { chunkBytes: CHUNK, firstChunk: first, dataChunksMax: windowMax };
        const windows = await all(planWindows(disk(sectors), plan));
        let next = first;
        for (const { from, to, data, empty } of windows) {
          expect(from).toBe(next);
          expect(to).toBeGreaterThan(from);
          expect(data.length).toBeLessThanOrEqual(windowMax);
          const covered = [
            ...data.map(({ chunk }) => chunk),
            ...empty.flatMap((run) => Array.from({ length: run.to - run.from }, (_, i) => run.from + i)),
          ].sort((a, b) => a - b);
          expect(covered).toEqual(Array.from({ length: to - from }, (_, i) => from + i));
          for (const { chunk, extents } of data) {
            const places = extents.flatMap((extent) =>
              Array.from({ length: extent.lengthBytes / SECTOR }, (_, i) => {
                const sector = extent.offset / SECTOR + i;
                if (extent.kind === 'data') expect(extent.fileOffset / SECTOR + i).toBe(sector + 1000);
                if (extent.kind === 'memory') expect(extent.bytes[i * SECTOR]).toBe(sector % 256);
                return sector;
              }),
            );
            const perChunk = CHUNK / SECTOR;
            const expected = sectors.flatMap((kind, sector) =>
              Math.floor(sector / perChunk) === chunk && (kind === 'data' || kind === 'memory') ? [sector] : [],
            );
            expect(expected.length).toBeGreaterThan(0);
            expect(places).toEqual(expected);
          }
          for (const run of empty) {
            const inside = sectors.slice((run.from * CHUNK) / SECTOR, (run.to * CHUNK) / SECTOR);
            expect(inside.every((kind) => kind === 'absent' || kind === 'zero')).toBe(true);
          }
          next = to;
        }
        expect(next).toBe(chunks);
        const bytes =
          sectors.slice((first * CHUNK) / SECTOR).filter((kind) => kind === 'data' || kind === 'memory').length *
          SECTOR;
        expect(await dataBytes(disk(sectors), first, CHUNK)).toBe(bytes);
      }),
      { numRuns: 400, seed: 11 },
    );
  });

  it('of an empty 64 TiB disk is one item', async () => {
    const sizeBytes = 2 ** 46;
    const extents = async function* (offset: number, lengthBytes: number): AsyncGenerator<Extent> {
      yield { kind: 'absent', offset, lengthBytes, depth: 0 };
    };
    const empty = { info: { virtualSizeBytes: sizeBytes }, extents } as unknown as VirtualDisk;
    const windows = await all(planWindows(empty, { chunkBytes: 65_536, firstChunk: 0, dataChunksMax: 1024 }));
    expect(windows).toEqual([{ from: 0, to: 2 ** 30, data: [], empty: [{ from: 0, to: 2 ** 30 }] }]);
  });
});

describe('ranges for a worker', () => {
  it('are five numbers each, and bytes in memory go along as copies', async () => {
    const sectors: Kind[] = ['absent', 'data', 'memory', 'data', 'memory'];
    const [window] = await all(planWindows(disk(sectors), { chunkBytes: CHUNK, firstChunk: 0, dataChunksMax: 9 }));
    const { ranges, inline } = packRanges(window!.data, CHUNK);
    const rows = Array.from({ length: ranges.length / RANGE_FIELDS }, (_, i) => [...ranges.subarray(i * 5, i * 5 + 5)]);
    expect(rows).toEqual([
      [0, 512, 7, 1001 * 512, 512],
      [0, 1024, -1, 0, 512],
      [0, 1536, 7, 1003 * 512, 512],
      [1, 0, -2, 0, 512],
    ]);
    expect(inline.map((bytes) => [bytes[0], bytes.byteLength, bytes.buffer.byteLength])).toEqual([
      [2, 512, 512],
      [4, 512, 512],
    ]);
  });

  it('cannot be made of a file without a descriptor', () => {
    const extent: Extent = {
      kind: 'data',
      offset: 0,
      lengthBytes: 512,
      depth: 0,
      file: { ...file, descriptor: undefined },
      fileOffset: 0,
    };
    expect(() => packRanges([{ chunk: 0, extents: [extent] }], CHUNK)).toThrow(/no descriptor/);
  });
});

describe('the plan over some chunks', () => {
  const runSets = fc
    .array(fc.tuple(fc.nat(12), fc.integer({ min: 1, max: 3 })), { maxLength: 6 })
    .map((runs) => joinRuns(runs.map(([from, length]) => ({ from, to: from + length }))));

  it('has exactly those, as the plan of the whole disk has them, in windows that follow one another', async () => {
    const sizes = fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 3 }), fc.nat(8));
    await fc.assert(
      fc.asyncProperty(layouts, runSets, sizes, async (sectors, only, [dataChunksMax, runsMax, skip]) => {
        const chunks = Math.ceil((sectors.length * SECTOR) / CHUNK);
        const firstChunk = Math.min(skip, chunks);
        const asked: { from: number; to: number }[] = [];
        const source = disk(sectors);
        const watched: VirtualDisk = {
          ...source,
          extents(offset, lengthBytes) {
            asked.push({ from: offset / CHUNK, to: Math.ceil((offset + lengthBytes) / CHUNK) });
            return source.extents(offset, lengthBytes);
          },
        };
        const windows = await all(
          planWindows(watched, { chunkBytes: CHUNK, firstChunk, only, dataChunksMax, runsMax }),
        );
        const wanted = [...runsWithin(only, firstChunk, chunks)];
        // Nothing is asked of any other chunk.
        expect(joinRuns(asked)).toEqual(wanted);
        let next = firstChunk;
        for (const { from, to, data, empty } of windows) {
          expect(from).toBe(next);
          expect(to).toBeGreaterThan(from);
          expect(data.length).toBeLessThanOrEqual(dataChunksMax);
          expect(empty.length).toBeLessThanOrEqual(data.length + runsMax);
          next = to;
        }
        expect(next).toBe(chunks);
        const covered = windows.flatMap(({ data, empty }) => [
          ...data.map(({ chunk }) => ({ from: chunk, to: chunk + 1 })),
          ...empty,
        ]);
        expect(joinRuns(covered)).toEqual(wanted);
        expect(windows.filter(({ data, empty }) => data.length + empty.length === 0).length).toBeLessThanOrEqual(1);
        const whole = await all(planWindows(source, { chunkBytes: CHUNK, firstChunk: 0, dataChunksMax: 99 }));
        const inSet = whole
          .flatMap(({ data }) => data)
          .filter(({ chunk }) => wanted.some(({ from, to }) => chunk >= from && chunk < to));
        expect(windows.flatMap(({ data }) => data)).toEqual(inSet);
        const bytes = inSet.flatMap(({ extents }) => extents).reduce((sum, extent) => sum + extent.lengthBytes, 0);
        expect(await dataBytes(source, firstChunk, CHUNK, only)).toBe(bytes);
      }),
      { numRuns: 400, seed: 12 },
    );
  });

  it('of an empty 64 TiB disk with three dirty chunks asks for three chunks', async () => {
    const asked: number[] = [];
    const extents = async function* (offset: number, lengthBytes: number): AsyncGenerator<Extent> {
      asked.push(lengthBytes);
      yield { kind: 'absent', offset, lengthBytes, depth: 0 };
    };
    const empty = { info: { virtualSizeBytes: 2 ** 46 }, extents } as unknown as VirtualDisk;
    const only = chunkRuns([7, 1_000_000, 2 ** 30 - 1]);
    const windows = await all(planWindows(empty, { chunkBytes: 65_536, firstChunk: 0, only, dataChunksMax: 1024 }));
    expect(windows).toEqual([{ from: 0, to: 2 ** 30, data: [], empty: only }]);
    expect(asked).toEqual([65_536, 65_536, 65_536]);
  });

  it('asks for the extents of a window when the window is wanted, not before', async () => {
    let kind: Kind = 'zero';
    const source = disk(new Array<Kind>(64).fill('data'));
    const changing: VirtualDisk = {
      ...source,
      extents: (offset, lengthBytes) =>
        disk(new Array<Kind>(64).fill('data', 0, 12).fill(kind, 12)).extents(offset, lengthBytes),
    };
    const plan = planWindows(changing, { chunkBytes: CHUNK, firstChunk: 0, dataChunksMax: 2 });
    const chunksOf = ({ value }: IteratorResult<PlanWindow>): number[] =>
      (value as PlanWindow).data.map(({ chunk }) => chunk);
    expect(chunksOf(await plan.next())).toEqual([0, 1]);
    kind = 'data';
    expect(chunksOf(await plan.next())).toEqual([2, 3]);
    expect(chunksOf(await plan.next())).toEqual([4, 5]);
    await plan.return(undefined);
  });
});
