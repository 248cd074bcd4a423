/** The manifest tree against a plain map, with crashes between any two page writes. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  chunkCount,
  type DiskGeometry,
  ENTRIES_PER_PAGE,
  ENTRY_BYTES,
  manifestBlobBytes,
  PAGE_BYTES,
  PageCipher,
  REFERENCES_PER_TABLE,
} from '../../src/chunker/index.ts';
import { ManifestTree, type PageAccess } from '../../src/replica/manifest-tree.ts';
import type { TableReference } from '../../src/replica/root.ts';
import { context } from '../chunker/support.ts';

const CHUNK = 65_536;
/** Two table pages: a disk of 182 GiB, of which nothing is used. */
const GEOMETRY: DiskGeometry = {
  chunkBytes: CHUNK,
  virtualSizeBytes: CHUNK * ENTRIES_PER_PAGE * (REFERENCES_PER_TABLE + 140),
};

/** A manifest blob in memory. */
class Blob implements PageAccess {
  readonly pages: Map<number, Uint8Array> = new Map();
  reads = 0;
  writes = 0;
  /** Runs while a write is under way, when its bytes are there. */
  onWrite: (() => Promise<void>) | undefined;

  async read(offset: number): Promise<Uint8Array> {
    this.reads += 1;
    return Uint8Array.from(this.pages.get(offset) ?? new Uint8Array(PAGE_BYTES));
  }

  readonly write = async (bytes: Uint8Array, offset: number): Promise<void> => {
    if (offset % PAGE_BYTES !== 0 || offset >= manifestBlobBytes(GEOMETRY)) throw new RangeError(`page at ${offset}`);
    this.writes += 1;
    this.pages.set(offset, Uint8Array.from(bytes));
    await this.onWrite?.();
  };
}

function tree(blob: PageAccess, tables: readonly TableReference[] = []): ManifestTree {
  return new ManifestTree(GEOMETRY, new PageCipher(context()), blob, tables);
}

/** An entry that says who wrote it; zeros for 0. */
function entryOf(value: number): Uint8Array {
  const bytes = Buffer.alloc(ENTRY_BYTES);
  bytes.writeUInt32LE(value, 0);
  return bytes;
}

type Model = ReadonlyMap<number, number>;

/** The tree holds exactly what the model does. */
async function expectContent(blob: Blob, tables: readonly TableReference[], model: Model): Promise<void> {
  const fresh = tree({ read: (offset) => blob.read(offset) }, tables);
  const used: number[] = [];
  for await (const chunk of fresh.usedChunks(0, chunkCount(GEOMETRY))) used.push(chunk);
  expect(used).toEqual([...model.keys()].filter((chunk) => model.get(chunk) !== 0).sort((a, b) => a - b));
  for (const [from, to] of [
    [0, chunkCount(GEOMETRY)],
    [used[1] ?? 0, used.at(-1) ?? 0],
    [7, 7],
  ] as const) {
    expect(await fresh.countUsed(from, to)).toBe(used.filter((chunk) => chunk >= from && chunk < to).length);
  }
  for (const [chunk, value] of model) {
    expect(Buffer.from(await fresh.entry(chunk)).readUInt32LE(0), `chunk ${chunk}`).toBe(value);
  }
  const chunks = [...model.keys()].sort((a, b) => a - b);
  const expected = Buffer.concat(chunks.map((chunk) => entryOf(model.get(chunk)!)));
  expect(expected.equals(await fresh.entries(Float64Array.from(chunks)))).toBe(true);
}

/** Chunks of three manifest pages under two table pages; few, so that they meet often. */
const CHUNKS = [0, 1, ENTRIES_PER_PAGE - 1, ENTRIES_PER_PAGE, ENTRIES_PER_PAGE * REFERENCES_PER_TABLE + 7];

type Step =
  | { readonly kind: 'set'; readonly chunk: number; readonly value: number }
  | { readonly kind: 'commit' | 'crash' };

const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('set' as const),
        chunk: fc.constantFrom(...CHUNKS),
        value: fc.constantFrom(0, 1, 2, 3),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('commit' as const, 'crash' as const) }) },
  ),
  { minLength: 1, maxLength: 25 },
);

describe('a manifest tree', () => {
  it('is a map of entries, and every page write leaves the committed root readable', async () => {
    let checked = 0;
    await fc.assert(
      fc.asyncProperty(steps, async (run) => {
        const blob = new Blob();
        let committed: readonly TableReference[] = [];
        let committedModel = new Map<number, number>();
        let model = new Map<number, number>();
        let live = tree(blob);
        let generation = 0;
        blob.onWrite = async () => {
          checked += 1;
          await expectContent(blob, committed, committedModel);
        };
        for (const step of run) {
          if (step.kind === 'set') {
            await live.setEntry(step.chunk, entryOf(step.value));
            model.set(step.chunk, step.value);
            expect(Buffer.from(await live.entry(step.chunk)).readUInt32LE(0)).toBe(step.value);
            continue;
          }
          generation += 1;
          const tables = await live.flush(generation);
          if (step.kind === 'commit') {
            committed = tables;
            committedModel = new Map(model);
          } else {
            // The root was never committed: the next run reads the tree of the last one.
            model = new Map(committedModel);
            live = tree(blob, committed);
          }
          await expectContent(blob, committed, committedModel);
        }
      }),
      { numRuns: 150, seed: 7 },
    );
    expect(checked).toBeGreaterThan(200);
  });

  it('writes a changed page once and an unchanged one never', async () => {
    const blob = new Blob();
    const live = tree(blob);
    for (const chunk of CHUNKS) await live.setEntry(chunk, entryOf(5));
    await live.flush(1);
    expect(blob.writes).toBe(3 + 2);
    await live.flush(2);
    expect(blob.writes).toBe(5);
    await live.setEntry(0, entryOf(6));
    await live.flush(3);
    expect(blob.writes).toBe(5 + 2);
  });

  it('costs nothing where nothing is used', async () => {
    const blob = new Blob();
    const live = tree(blob);
    for await (const chunk of live.usedChunks(0, chunkCount(GEOMETRY))) expect.unreachable(`chunk ${chunk}`);
    await live.setEntry(3, entryOf(0));
    expect(await live.flush(1)).toEqual([]);
    expect([blob.reads, blob.writes]).toEqual([0, 0]);
  });

  it('lets a page and its table cease to exist when their last entry becomes zeros', async () => {
    const blob = new Blob();
    const live = tree(blob);
    await live.setEntry(3, entryOf(9));
    expect(await live.flush(1)).toHaveLength(1);
    await live.setEntry(3, entryOf(0));
    expect(await live.flush(2)).toEqual([]);
    await expectContent(blob, [], new Map([[3, 0]]));
  });

  it('keeps what is changed while a flush writes the same page', async () => {
    const blob = new Blob();
    const live = tree(blob);
    await live.setEntry(0, entryOf(1));
    let once = true;
    blob.onWrite = async () => {
      if (!once) return;
      once = false;
      await live.setEntry(0, entryOf(2));
      await live.setEntry(1, entryOf(3));
    };
    const first = await live.flush(1);
    await expectContent(blob, first, new Map([[0, 1]]));
    const second = await live.flush(2);
    await expectContent(
      blob,
      second,
      new Map([
        [0, 2],
        [1, 3],
      ]),
    );
  });

  it('keeps a bounded number of clean pages and loses no changed one', async () => {
    const blob = new Blob();
    const live = tree(blob);
    const pages = 130;
    for (let page = 0; page < pages; page += 1) await live.setEntry(page * ENTRIES_PER_PAGE, entryOf(page + 1));
    const tables = await live.flush(1);
    const model = new Map(Array.from({ length: pages }, (_, page) => [page * ENTRIES_PER_PAGE, page + 1]));
    await expectContent(blob, tables, model);

    const reader = tree(blob, tables);
    const pass = async (): Promise<number> => {
      const before = blob.reads;
      for (let page = 0; page < pages; page += 1) await reader.entry(page * ENTRIES_PER_PAGE);
      return blob.reads - before;
    };
    expect(await pass()).toBe(pages + 1);
    // Had it kept them all there would be nothing to read.
    expect(await pass()).toBeGreaterThan(pages / 2);
  });

  it('serves many callers at once, more than it keeps pages', async () => {
    const live = tree(new Blob());
    const pages = 300;
    const work = Array.from({ length: pages }, async (_, page) => {
      const chunk = page * ENTRIES_PER_PAGE;
      const before = Buffer.from(await live.entry(chunk)).readUInt32LE(0);
      await live.setEntry(chunk, entryOf(before + page + 1));
      await live.setEntry(chunk + 1, entryOf(page + 1));
    });
    await Promise.all(work);
    for (let page = 0; page < pages; page += 1) {
      const chunk = page * ENTRIES_PER_PAGE;
      expect(Buffer.from(await live.entry(chunk)).readUInt32LE(0)).toBe(page + 1);
    }
  });

  it('never takes a slow read of an old version for the page, when a newer one was flushed and dropped', async () => {
    const blob = new Blob();
    const first = tree(blob);
    await first.setEntry(0, entryOf(1));
    const tables = await first.flush(1);

    let answer = (): void => {};
    const reads = new Map<number, number>();
    const slow: PageAccess = {
      write: blob.write,
      async read(offset) {
        const bytes = await blob.read(offset);
        reads.set(offset, (reads.get(offset) ?? 0) + 1);
        // The second reader of the page waits long for its answer. (The table page is read before and once.)
        const isEntries = offset >= 2 * 2 * PAGE_BYTES;
        if (isEntries && reads.get(offset) === 2) await new Promise<void>((resolve) => (answer = resolve));
        return bytes;
      },
    };
    const live = tree(slow, tables);
    await live.entry(ENTRIES_PER_PAGE);
    const early = live.setEntry(0, entryOf(2));
    const late = live.entry(0);
    await early;
    await live.flush(2);
    for (let page = 1; page < 100; page += 1) await live.entry(page * ENTRIES_PER_PAGE);
    answer();
    await late;
    expect(Buffer.from(await live.entry(0)).readUInt32LE(0)).toBe(2);
  });

  it('that is only read cannot be flushed with changes', async () => {
    const blob = new Blob();
    const live = tree({ read: (offset) => blob.read(offset) });
    await live.setEntry(0, entryOf(1));
    await expect(live.flush(1)).rejects.toThrow(TypeError);
  });
});

describe('two versions of a tree', () => {
  it('differ in the pages that were written since; where tables are the same nothing is read', async () => {
    const blob = new Blob();
    const written = tree(blob);
    const last = REFERENCES_PER_TABLE * ENTRIES_PER_PAGE;
    for (const chunk of [5, 3 * ENTRIES_PER_PAGE, last]) await written.setEntry(chunk, entryOf(1));
    const before = await written.flush(1);
    await written.setEntry(5, entryOf(0));
    await written.setEntry(7 * ENTRIES_PER_PAGE - 1, entryOf(2));
    const after = await written.flush(2);
    blob.reads = 0;
    const differing = async (a: readonly TableReference[], b: readonly TableReference[]): Promise<number[]> => {
      const pages: number[] = [];
      for await (const page of tree(blob, a).differingPages(tree(blob, b))) pages.push(page);
      return pages;
    };
    expect(await differing(before, after)).toEqual([0, 6]);
    // The first table of each; the second one is the same.
    expect(blob.reads).toBe(2);
    expect(await differing(after, before)).toEqual([0, 6]);
    expect(await differing([], after)).toEqual([3, 6, REFERENCES_PER_TABLE]);
    blob.reads = 0;
    expect(await differing(after, after)).toEqual([]);
    expect(blob.reads).toBe(0);
  });
});
