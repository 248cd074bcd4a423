/**
 * A disk of a replica, to be read: as a recovery point froze it, or (to find damage) as it stands.
 *
 * `batches` walks the manifest and fetches what the store holds of each chunk, several requests at a time, neighbours
 * together, into buffers of a pool. Whoever takes a batch gives its buffer back. Nothing is opened or believed here.
 */
import { chunkCount, ENTRY_BYTES, PAGE_BYTES, paddedSlotBytes, readEntry } from '../chunker/index.ts';
import { BlockferryError, isBlockferryError } from '../errors.ts';
import { PAGE_WRITE_BYTES_MAX } from '../limits.ts';
import type { Ports } from '../ports.ts';
import type { Lanes, PageBlob, ReadOptions } from '../transport/index.ts';
import type { BufferPool } from '../workers/index.ts';
import { BaseLayout } from './base.ts';
import type { DiskDescription } from './description.ts';
import { baseKey, manifestKey } from './layout.ts';
import { ManifestTree } from './manifest-tree.ts';
import { pageCipher, type Replica } from './replica.ts';
import type { PointDisk, TableReference } from './root.ts';

/** Bytes between two pieces that are fetched along: cheaper than another request. */
const GAP_BYTES_MAX = 64 * 1024;

/** What to read: the snapshots of a recovery point, or the live blobs with the tables of the root. */
export type DiskState = PointDisk | { readonly tables: readonly TableReference[]; readonly live: true };

/** How the store is read. */
export interface ReadAccess {
  readonly lanes: Lanes;
  readonly ports: Pick<Ports, 'random'>;
  readonly signal: AbortSignal;
  /** Bytes between two pieces of a base that are fetched along, instead of another request. */
  readonly gapBytes?: number;
}

/** Chunks with what the store holds of them. */
export interface FetchedBatch {
  /** Ascending. */
  readonly chunks: Float64Array;
  /** 48 bytes a chunk. */
  readonly entries: Uint8Array;
  /** Offset and length in `buffer`, per chunk. */
  readonly places: Float64Array;
  readonly buffer: ArrayBuffer;
  readonly fetchedBytes: number;
}

/** A chunk and where its stored bytes are. */
interface Wanted {
  readonly chunk: number;
  readonly entry: Uint8Array;
  readonly segment: number;
  readonly offset: number;
  readonly lengthBytes: number;
}

/** Pieces that one request fetches, with what lies between them. */
interface Fetch {
  readonly segment: number;
  readonly offset: number;
  lengthBytes: number;
  readonly wanted: Wanted[];
}

export class FrozenDisk {
  readonly description: DiskDescription;
  readonly tree: ManifestTree;
  readonly #replica: Replica;
  readonly #state: DiskState;
  readonly #layout: BaseLayout;
  readonly #lanes: Lanes;
  readonly #signal: AbortSignal;
  readonly #gapBytes: number;
  readonly #segments: Map<number, PageBlob> = new Map();

  constructor(replica: Replica, disk: number, state: DiskState, access: ReadAccess) {
    this.description = replica.description.disks[disk]!;
    this.#replica = replica;
    this.#state = state;
    const { lanes, ports, signal, gapBytes = GAP_BYTES_MAX } = access;
    this.#gapBytes = gapBytes;
    this.#lanes = lanes;
    this.#signal = signal;
    this.#layout = new BaseLayout(this.description);
    const manifest = replica.store.pages(manifestKey(this.description.id));
    const options = 'live' in state ? { signal } : { snapshot: state.manifestSnapshot, signal };
    const read = (offset: number): Promise<Uint8Array> =>
      committed(manifest.key, 'REPLICA_MANIFEST', () => manifest.read(offset, PAGE_BYTES, options));
    this.tree = new ManifestTree(this.description, pageCipher(replica, disk, ports), { read }, state.tables);
  }

  /** Chunks that are not zeros, ascending. */
  usedChunks(): AsyncIterable<number> {
    return this.tree.usedChunks(0, chunkCount(this.description));
  }

  /** How many those are. */
  countUsed(): Promise<number> {
    return this.tree.countUsed(0, chunkCount(this.description));
  }

  /**
   * Fetches the chunks of `numbers` (ascending, not zeros) into buffers of the pool, in batches. A buffer is acquired
   * before its batch is asked for, so that is what bounds the memory; batches may resolve in any order. (They come
   * inside an object because a generator would wait for a bare promise.)
   */
  async *batches(
    numbers: AsyncIterable<number>,
    buffers: BufferPool,
  ): AsyncGenerator<{ readonly fetched: Promise<FetchedBatch> }> {
    let wanted: Wanted[] = [];
    let bytes = 0;
    for await (const chunk of numbers) {
      const entry = this.tree.entryAtHand(chunk) ?? (await this.tree.entry(chunk));
      const next = this.#locate(chunk, entry);
      const gap = gapBetween(wanted.at(-1), next);
      const moreBytes = next.lengthBytes + (gap <= this.#gapBytes ? gap : 0);
      if (bytes + moreBytes <= buffers.bufferBytes) {
        wanted.push(next);
        bytes += moreBytes;
      } else {
        yield { fetched: this.#fetchBatch(wanted, await buffers.acquire()) };
        wanted = [next];
        bytes = next.lengthBytes;
      }
    }
    if (wanted.length > 0) yield { fetched: this.#fetchBatch(wanted, await buffers.acquire()) };
  }

  /** Fetches these chunks (ascending, not zeros) to the head of a buffer, of which `roomBytes` may be used. */
  async fetch(chunks: readonly number[], buffer: ArrayBuffer, roomBytes: number): Promise<FetchedBatch> {
    const wanted = chunks.map(async (chunk) => this.#locate(chunk, await this.tree.entry(chunk)));
    return this.#fetchBatch(await Promise.all(wanted), buffer, roomBytes);
  }

  #locate(chunk: number, entryView: Uint8Array): Wanted {
    // A copy: the page may be dropped at the next wait.
    const entry = entryView.slice();
    const { clen } = readEntry(entry)!;
    const { chunkBytes, layout } = this.description;
    if (clen < 1 || clen > chunkBytes) throw damagedEntry(chunk, clen, chunkBytes);
    const lengthBytes = layout === 'raw' ? clen : paddedSlotBytes(clen);
    return { chunk, entry, lengthBytes, ...this.#layout.place(chunk) };
  }

  async #fetchBatch(
    wanted: readonly Wanted[],
    buffer: ArrayBuffer,
    roomBytes: number = buffer.byteLength,
  ): Promise<FetchedBatch> {
    const places = new Float64Array(wanted.length * 2);
    const entries = new Uint8Array(wanted.length * ENTRY_BYTES);
    const fetched: Promise<void>[] = [];
    let [index, fetchedBytes] = [0, 0];
    for (const fetch of plan(wanted, roomBytes, this.#gapBytes)) {
      for (const { entry, offset, lengthBytes } of fetch.wanted) {
        places.set([fetchedBytes + offset - fetch.offset, lengthBytes], index * 2);
        entries.set(entry, index * ENTRY_BYTES);
        index += 1;
      }
      fetched.push(this.#fetch(fetch, new Uint8Array(buffer, fetchedBytes, fetch.lengthBytes)));
      fetchedBytes += fetch.lengthBytes;
    }
    await Promise.all(fetched);
    return { chunks: Float64Array.from(wanted, ({ chunk }) => chunk), entries, places, buffer, fetchedBytes };
  }

  async #fetch(fetch: Fetch, into: Uint8Array): Promise<void> {
    const bytes = await this.#read(fetch, into);
    if (bytes !== into) into.set(bytes);
  }

  #base(segment: number): PageBlob {
    const known = this.#segments.get(segment);
    if (known) return known;
    const blob = this.#replica.store.pages(baseKey(this.description.id, segment));
    this.#segments.set(segment, blob);
    return blob;
  }

  async #read({ segment, offset, lengthBytes, wanted }: Fetch, into: Uint8Array): Promise<Uint8Array> {
    const blob = this.#base(segment);
    const signal = this.#signal;
    const read = (options: ReadOptions): Promise<Uint8Array> =>
      committed(blob.key, 'REPLICA_SLOT', () =>
        this.#lanes.run(lengthBytes, () => blob.read(offset, lengthBytes, options), { signal }),
      );
    if ('live' in this.#state) return read({ into, signal });
    const frozen = this.#state.baseSnapshots.find((base) => base.segment === segment);
    if (frozen) return read({ snapshot: frozen.snapshot, into, signal });
    const { chunk } = wanted[0]!;
    throw new BlockferryError(
      'REPLICA_ROOT',
      `chunk ${chunk} lies in segment ${segment}, of which the point has no snapshot`,
      {
        facts: { segment, chunk, rule: 'a used segment has a snapshot' },
      },
    );
  }
}

/** A read of what the root names: a blob, snapshot or object that is gone or of another length is damage, not an absent store. */
export async function committed(
  key: string,
  code: 'REPLICA_MANIFEST' | 'REPLICA_SLOT' | 'REPLICA_LOG',
  read: () => Promise<Uint8Array>,
): Promise<Uint8Array> {
  try {
    return await read();
  } catch (cause) {
    if (!(cause instanceof RangeError) && !isBlockferryError(cause, 'STORE_NOT_FOUND')) throw cause;
    throw new BlockferryError(code, `${key}: what the root names is missing: ${cause.message}`, {
      cause,
      facts: { source: key, rule: 'what the root names is there' },
      hint: 'somebody removed or shortened it; restore it from a copy of the store, or choose another recovery point',
    });
  }
}

/** Bytes between two pieces; NaN if the second does not lie behind the first. */
function gapBetween(first: Wanted | Fetch | undefined, second: Wanted): number {
  if (first?.segment !== second.segment) return Number.NaN;
  const gap = second.offset - (first.offset + first.lengthBytes);
  return gap >= 0 ? gap : Number.NaN;
}

/**
 * Joins pieces that lie close together into requests of at most one Put Page's size, as far as there is room for what lies
 * between them.
 */
function plan(wanted: readonly Wanted[], roomBytes: number, gapBytes: number): readonly Fetch[] {
  const fetches: Fetch[] = [];
  let spareBytes = wanted.reduce((room, { lengthBytes }) => room - lengthBytes, roomBytes);
  for (const want of wanted) {
    const last = fetches.at(-1);
    const gap = gapBetween(last, want);
    const joined = last ? last.lengthBytes + gap + want.lengthBytes : Number.NaN;
    if (last && gap <= Math.min(gapBytes, spareBytes) && joined <= PAGE_WRITE_BYTES_MAX) {
      last.lengthBytes = joined;
      last.wanted.push(want);
      spareBytes -= gap;
    } else {
      fetches.push({ segment: want.segment, offset: want.offset, lengthBytes: want.lengthBytes, wanted: [want] });
    }
  }
  return fetches;
}

function damagedEntry(chunk: number, clen: number, chunkBytes: number): BlockferryError {
  return new BlockferryError(
    'REPLICA_MANIFEST',
    `the entry of chunk ${chunk} has length ${clen}, a chunk has ${chunkBytes}`,
    {
      facts: { chunk, clen, rule: 'clen is at most that of the chunk' },
    },
  );
}
