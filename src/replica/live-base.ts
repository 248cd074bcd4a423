/**
 * The live base of one disk: writing and clearing chunks, under the fence and lease of a writer session.
 *
 * Segments are created when the first chunk goes there; clearing what was never created costs nothing. Each call
 * resolves when the store has acknowledged it, and rejects when the session is cancelled; `flush` makes what was
 * acknowledged durable (a folder syncs).
 */
import type { BaseLayout, BasePiece } from './base.ts';
import { baseKey } from './layout.ts';
import type { SessionBlob, WriterSession } from './writer-session.ts';

export class LiveBase {
  readonly #diskId: string;
  readonly #layout: BaseLayout;
  readonly #session: WriterSession;
  readonly #segments: Map<number, Promise<SessionBlob | undefined>> = new Map();
  #changed = false;

  constructor(diskId: string, layout: BaseLayout, session: WriterSession) {
    this.#diskId = diskId;
    this.#layout = layout;
    this.#session = session;
  }

  /** Whether anything was written or cleared. */
  get changed(): boolean {
    return this.#changed;
  }

  /** Writes pieces of `buffer` where their chunks belong; returns the bytes sent. */
  async write(pieces: readonly BasePiece[], buffer: ArrayBuffer): Promise<number> {
    this.#changed ||= pieces.length > 0;
    const sent = this.#layout.runs(pieces, buffer).map(async ({ segment, offset, bytes, crc64 }) => {
      const blob = await this.#segment(segment, true);
      await blob!.write(bytes, offset, { ...this.#options(), crc64 });
      return bytes.byteLength;
    });
    return (await Promise.all(sent)).reduce((sum, n) => sum + n, 0);
  }

  /** Makes the place of chunks [from, to) zeros. */
  async clear(from: number, to: number): Promise<void> {
    this.#changed = true;
    for (const { segment, offset, lengthBytes } of this.#layout.spans(from, to)) {
      const blob = await this.#segment(segment, false);
      await blob?.clear(offset, lengthBytes, this.#options());
    }
  }

  /** Makes a part of the place of a chunk zeros. */
  async clearPart({ chunk, chunkOffset = 0, lengthBytes }: Omit<BasePiece, 'offset'>): Promise<void> {
    this.#changed = true;
    const { segment, offset } = this.#layout.place(chunk);
    const blob = await this.#segment(segment, false);
    await blob?.clear(offset + chunkOffset, lengthBytes, this.#options());
  }

  /** What stands in the place of neighbouring chunks [from, to) of one segment; undefined if it was never created. */
  async read(from: number, to: number): Promise<Uint8Array | undefined> {
    const [place] = this.#layout.spans(from, to);
    const blob = await this.#segment(place!.segment, false);
    return blob?.read(place!.offset, place!.lengthBytes, this.#options());
  }

  async flush(): Promise<void> {
    for (const segment of this.#segments.values()) await (await segment)?.flush();
  }

  /** Freezes all segments that exist. */
  async snapshot(): Promise<readonly { readonly segment: number; readonly snapshot: string }[]> {
    const snapshots: { segment: number; snapshot: string }[] = [];
    for (let segment = 0; segment < this.#layout.segments; segment += 1) {
      const blob = await this.#segment(segment, false);
      if (blob) snapshots.push({ segment, snapshot: await blob.snapshot(this.#options()) });
    }
    return snapshots;
  }

  /** The segments that exist. */
  async blobs(): Promise<readonly SessionBlob[]> {
    const blobs: SessionBlob[] = [];
    for (let segment = 0; segment < this.#layout.segments; segment += 1) {
      const blob = await this.#segment(segment, false);
      if (blob) blobs.push(blob);
    }
    return blobs;
  }

  /** A cancelled session does not wait for a store that is out of reach. */
  #options(): { readonly signal: AbortSignal } {
    return { signal: this.#session.signal };
  }

  async #segment(segment: number, create: boolean): Promise<SessionBlob | undefined> {
    const known = this.#segments.get(segment);
    const found = await known;
    if (found || (known && !create)) return found;
    // Another caller may have begun to create it during the wait.
    const current = this.#segments.get(segment);
    if (current && current !== known) return this.#segment(segment, create);
    const sizeBytes = create ? this.#layout.segmentBytes(segment) : undefined;
    const opening = this.#session.open(baseKey(this.#diskId, segment), sizeBytes);
    this.#segments.set(segment, opening);
    return opening;
  }
}
