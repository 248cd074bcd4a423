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

/** A disk of data in memory, of which every chunk differs; writing chunk `failing` is refused, after all others. */
function setup(failing: number | undefined, ledger: SyncLedger): DiskSyncSetup {
  const bytes = new Uint8Array(CHUNK);
  const extents = async function* (offset: number, lengthBytes: number): AsyncGenerator<Extent> {
    for (let at = offset; at < offset + lengthBytes; at += CHUNK) {
      yield { kind: 'memory', offset: at, lengthBytes: CHUNK, depth: 0, bytes };
    }
  };
  const scan = async ({ chunks, buffer }: ScanTask) => ({
    verdicts: new Uint8Array(chunks.length).fill(VERDICT.changed),
    entries: new Uint8Array(chunks.length * ENTRY_BYTES).fill(1),
    places: new Float64Array(chunks.length * 2),
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
    tree: { entry: async () => new Uint8Array(ENTRY_BYTES), setEntry: async () => {} } as never,
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

  it('never settles a window with a chunk that was not acknowledged, nor anything behind it', async () => {
    const ledger = new SyncLedger(0, 0, []);
    await expect(new DiskSync(setup(5, ledger)).run()).rejects.toMatchObject({ message: 'planted' });
    expect(ledger.cursor).toBe(0);
  });
});
