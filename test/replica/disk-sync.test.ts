/** One disk's sync with everything around it faked: what counts as settled when work fails. */
import { describe, expect, it } from 'vitest';
import { ENTRY_BYTES } from '../../src/chunker/index.ts';
import { BlockferryError } from '../../src/errors.ts';
import { nodePorts } from '../../src/host/index.ts';
import { batchBufferBytes, DiskSync, type DiskSyncSetup } from '../../src/replica/disk-sync.ts';
import { SyncLedger } from '../../src/replica/sync-ledger.ts';
import type { Extent } from '../../src/vhd/index.ts';
import { BufferPool, type ScanTask, VERDICT } from '../../src/workers/index.ts';

const CHUNK = 65_536;
/** Two windows of 64 MiB. */
const CHUNKS = 2048;

/**
 * A disk of data in memory, of which every chunk differs; writing chunk `failing` is refused, after all others. A worker has room for
 * `atOnce` chunks.
 */
function setup(failing: number | undefined, ledger: SyncLedger, atOnce = Number.POSITIVE_INFINITY): DiskSyncSetup {
  const bytes = new Uint8Array(CHUNK);
  const extents = async function* (offset: number, lengthBytes: number): AsyncGenerator<Extent> {
    for (let at = offset; at < offset + lengthBytes; at += CHUNK) {
      yield { kind: 'memory', offset: at, lengthBytes: CHUNK, depth: 0, bytes };
    }
  };
  const scan = async ({ chunks, buffer }: ScanTask) => ({
    verdicts: new Uint8Array(Math.min(atOnce, chunks.length)).fill(VERDICT.changed),
    entries: new Uint8Array(chunks.length * ENTRY_BYTES).fill(1),
    places: new Float64Array(chunks.length * 2),
    checksums: new Uint8Array(),
    readBytes: 0,
    buffer,
  });
  const write = async (pieces: readonly { readonly chunk: number }[]): Promise<number> => {
    await new Promise((resolve) => setTimeout(resolve, pieces.some(({ chunk }) => chunk === failing) ? 30 : 0));
    if (pieces.some(({ chunk }) => chunk === failing)) throw new BlockferryError('STORE_REFUSED', 'planted');
    return pieces.length * CHUNK;
  };
  const checkpoint = async (intentEnd: number): Promise<void> => ledger.committed(intentEnd);
  return {
    disk: 0,
    source: { info: { virtualSizeBytes: CHUNKS * CHUNK }, extents } as never,
    chunkBytes: CHUNK,
    generation: 2,
    tree: {
      entries: async ({ length }: Float64Array) => new Uint8Array(length * ENTRY_BYTES),
      setEntry: async () => {},
    } as never,
    base: { write } as never,
    ledger,
    full: false,
    checkpoint,
    pool: { scan } as never,
    buffers: new BufferPool(batchBufferBytes(CHUNK), CHUNKS),
    ports: nodePorts(),
    signal: new AbortController().signal,
    onProgress: () => {},
  };
}

describe('a sync of one disk', () => {
  it('settles all of it when all was acknowledged', async () => {
    const ledger = new SyncLedger(0, 0, []);
    const run = new DiskSync(setup(undefined, ledger));
    await run.run();
    expect(ledger.cursor).toBe(CHUNKS);
    expect(run.counts).toMatchObject({ chunksCompared: CHUNKS, chunksSent: CHUNKS, sentBytes: CHUNKS * CHUNK });
  });

  it('asks for more at a time while nothing changes, and for less when something does', async () => {
    const ledger = new SyncLedger(0, 0, []);
    const fake = setup(undefined, ledger);
    const asked: number[] = [];
    const scan: (typeof fake.pool)['scan'] = async (task) => {
      asked.push(task.chunks.length);
      const result = await fake.pool.scan(task);
      if (!task.chunks.includes(1600)) result.verdicts.fill(VERDICT.same);
      return result;
    };
    const buffers = new BufferPool(batchBufferBytes(CHUNK), 1);
    await new DiskSync({ ...fake, pool: { scan } as never, buffers }).run();
    // 2 MiB, then 8 MiB to the end of a window and up to the change; behind it 2 MiB once more.
    const [small, large] = [32, 128];
    expect(asked).toEqual([
      ...[small, ...Array(7).fill(large), 96],
      ...Array(5).fill(large),
      ...[small, large, large, 96],
    ]);
    expect(asked.reduce((sum, count) => sum + count, 0)).toBe(CHUNKS);
  });

  it('goes on with what a buffer had no room for, until each chunk was sent once', async () => {
    const ledger = new SyncLedger(0, 0, []);
    const fake = setup(undefined, ledger, 7);
    const written: number[] = [];
    const write = async (pieces: readonly { readonly chunk: number }[]): Promise<number> => {
      written.push(...pieces.map(({ chunk }) => chunk));
      return pieces.length * CHUNK;
    };
    const buffers = new BufferPool(batchBufferBytes(CHUNK), 3);
    const run = new DiskSync({ ...fake, base: { write } as never, buffers });
    await run.run();
    expect(written.sort((a, b) => a - b)).toEqual(Array.from({ length: CHUNKS }, (_, i) => i));
    expect(run.counts).toMatchObject({ chunksCompared: CHUNKS, chunksSent: CHUNKS, doneBytes: CHUNKS * CHUNK });
    expect(ledger.cursor).toBe(CHUNKS);
    expect(buffers.inUse).toBe(0);
  });

  it('never settles a window of which the rest was not acknowledged, and leaves nothing under way', async () => {
    const ledger = new SyncLedger(0, 0, []);
    const fake = setup(100, ledger, 7);
    let underWay = 0;
    const write: (typeof fake.base)['write'] = async (...of) => {
      underWay += 1;
      return fake.base.write(...of).finally(() => (underWay -= 1));
    };
    await expect(new DiskSync({ ...fake, base: { write } as never }).run()).rejects.toMatchObject({
      message: 'planted',
    });
    expect(ledger.cursor).toBe(0);
    expect(underWay).toBe(0);
  });

  it('never settles a window with a chunk that was not acknowledged, nor anything behind it', async () => {
    const ledger = new SyncLedger(0, 0, []);
    await expect(new DiskSync(setup(5, ledger)).run()).rejects.toMatchObject({ message: 'planted' });
    expect(ledger.cursor).toBe(0);
  });
});

describe('a sync of one disk, before a root allows it', () => {
  const FEW = 8;

  /** A disk of which chunks 0 and 1 differ, chunk 2 is zeros in its file, and the rest is in no file. */
  function small(ledger: SyncLedger): DiskSyncSetup & { readonly changes: string[] } {
    const changes: string[] = [];
    const check = (what: string, to: number): void => {
      if (!ledger.allows(to)) throw new Error(`${what} below ${to} is not allowed yet`);
      changes.push(`${what} ${to}`);
    };
    const usual = setup(undefined, ledger);
    const bytes = new Uint8Array(3 * CHUNK);
    const extents = async function* (): AsyncGenerator<Extent> {
      yield { kind: 'memory', offset: 0, lengthBytes: 3 * CHUNK, depth: 0, bytes };
      yield { kind: 'absent', offset: 3 * CHUNK, lengthBytes: (FEW - 3) * CHUNK, depth: 0 };
    };
    return {
      ...usual,
      changes,
      source: { info: { virtualSizeBytes: FEW * CHUNK }, extents } as never,
      tree: {
        entries: async ({ length }: Float64Array) => new Uint8Array(length * ENTRY_BYTES).fill(1),
        setEntry: async () => {},
        usedChunks: async function* (from: number, to: number): AsyncGenerator<number> {
          if (from <= 5 && to > 5) yield 5;
        },
      } as never,
      base: {
        write: async (pieces: readonly { readonly chunk: number }[]) => {
          for (const { chunk } of pieces) check('write', chunk + 1);
          return 0;
        },
        clear: async (_: number, to: number) => check('clear', to),
      } as never,
      pool: {
        scan: async (task: ScanTask) => ({
          ...(await usual.pool.scan(task)),
          verdicts: Uint8Array.from(task.chunks, (chunk) => (chunk === 2 ? VERDICT.zero : VERDICT.changed)),
        }),
      } as never,
      findPatches: async (pieces) => ({ clear: [{ from: 1, to: 2 }], pieces, fetchedBytes: 0, damaged: 0 }),
      checkpoint: async (intentEnd) => {
        await new Promise((resolve) => setTimeout(resolve, 5));
        ledger.committed(intentEnd);
      },
    };
  }

  it.each([
    ['what became zeros', [], []],
    ['what is in doubt besides', [{ disk: 0, from: 7, to: 8 }], ['clear 8']],
  ])('neither writes nor clears: not what differs, not %s', async (_, suspect, more) => {
    const ledger = new SyncLedger(0, 0, suspect);
    const { changes, ...setupOfIt } = small(ledger);
    await new DiskSync(setupOfIt).run();
    // Before patches, for an entry that is left over, and for a verdict of zeros.
    expect(changes.sort()).toEqual(['clear 2', 'clear 3', 'clear 6', ...more, 'write 1', 'write 2']);
  });
});
