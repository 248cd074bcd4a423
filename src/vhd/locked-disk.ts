/**
 * LockedDisk: a WritableDisk over a format's LayerWriter and the layers of its parents.
 *
 * Reading, and writing where every sector has its place already, share the lock: guests mostly do that, at any depth.
 * What changes tables has the disk for itself. So no reader meets a table half changed, and a flush never makes a
 * table durable that is ahead of its data.
 */
import { alignDown } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import type { RandomAccessFile } from '../ports.ts';
import { ChainDisk } from './chain-disk.ts';
import { asOutputError, checkWriteRange } from './image-file.ts';
import { KnownPlaces, PIECE_BYTES } from './known-places.ts';
import type { Layer } from './layer.ts';
import type { LayerWriter } from './layer-writer.ts';
import { SharedLock } from './shared-lock.ts';
import { BLOCK_BYTES_MAX } from './vhdx-layout.ts';
import type { DiskInfo, Extent, WritableDisk, ZeroOptions } from './virtual-disk.ts';

type State = 'open' | 'broken' | 'closed';

/** Zeros are made in steps, between which others have their turn. No block is larger, so none is divided. */
const ZERO_STEP_BYTES: number = BLOCK_BYTES_MAX;

export class LockedDisk implements WritableDisk {
  readonly info: DiskInfo;
  readonly identity: string;
  readonly files: readonly RandomAccessFile[];
  readonly #writer: LayerWriter;
  readonly #chain: ChainDisk;
  readonly #lock = new SharedLock();
  readonly #places = new KnownPlaces();
  #hasChanged = false;
  #state: State = 'open';

  /** Takes over the files of all layers: `close` closes them. */
  constructor(writer: LayerWriter, parents: readonly Layer[]) {
    this.#writer = writer;
    this.#chain = new ChainDisk([writer.layer, ...parents]);
    this.info = this.#chain.info;
    this.identity = this.#chain.identity;
    this.files = this.#chain.files;
  }

  get contentId(): string {
    return this.#writer.contentId;
  }

  async renewContentId(next: string): Promise<void> {
    this.#assertOpen();
    await this.#change(async () => {}, next);
  }

  async *extents(offset: number, lengthBytes: number): AsyncGenerator<Extent> {
    const extents = this.#chain.extents(offset, lengthBytes);
    for (;;) {
      const step = await this.#lock.shared(() => extents.next());
      if (step.done === true) return;
      yield step.value;
    }
  }

  read(into: Uint8Array, offset: number): Promise<void> {
    return this.#lock.shared(() => this.#chain.read(into, offset));
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    this.#checkRange(offset, bytes.byteLength);
    this.#assertOpen();
    if (bytes.byteLength === 0) return;
    const isDone = this.#hasChanged && (await this.#lock.shared(() => this.#writeInPlace(bytes, offset)));
    if (!isDone) await this.#change(() => this.#writer.write(bytes, offset));
  }

  writeNow(bytes: Uint8Array, offset: number): boolean {
    const { file } = this.#writer.layer;
    const { byteLength } = bytes;
    this.#checkRange(offset, byteLength);
    this.#assertOpen();
    if (file.writeNow === undefined || !this.#lock.isSharable || byteLength === 0) return false;
    const isFlat = this.#writer.isFlat === true;
    if (!isFlat && !(this.#hasChanged && this.#places.knows(offset, byteLength))) return false;
    try {
      if (isFlat) file.writeNow([bytes], offset);
      for (let at = offset, end = offset + byteLength; at < end && !isFlat; ) {
        const next = Math.min(end, alignDown(at, PIECE_BYTES) + PIECE_BYTES);
        file.writeNow([bytes.subarray(at - offset, next - offset)], this.#places.fileOffset(at));
        at = next;
      }
      return true;
    } catch (error) {
      this.#state = 'broken';
      throw asOutputError(file.path, error);
    }
  }

  async zero(offset: number, lengthBytes: number, options: ZeroOptions = {}): Promise<void> {
    this.#checkRange(offset, lengthBytes);
    this.#assertOpen();
    const end = offset + lengthBytes;
    for (let at = offset; at < end; ) {
      const from = at;
      const next = Math.min(end, (Math.floor(from / ZERO_STEP_BYTES) + 1) * ZERO_STEP_BYTES);
      await this.#change(async () => {
        this.#places.forget(from, next - from);
        await this.#writer.zero(from, next - from, options.unmap ?? false);
      });
      at = next;
    }
  }

  async flush(): Promise<void> {
    this.#assertOpen();
    if (this.#writer.hasPending) await this.#lock.alone(() => this.#guard(() => this.#writer.flush()));
    else await this.#guard(() => this.#writer.layer.file.sync());
  }

  async close(): Promise<void> {
    if (this.#state === 'closed') return;
    try {
      await this.#lock.alone(async () => {
        if (this.#state !== 'open') return;
        await this.#guard(async () => {
          await this.#writer.flush();
          await this.#writer.finish();
        });
      });
    } finally {
      this.#state = 'closed';
      await this.#chain.close();
    }
  }

  /** True if all sectors of the range have their place in the file, and are written now. */
  async #writeInPlace(bytes: Uint8Array, offset: number): Promise<boolean> {
    const { layer } = this.#writer;
    return await this.#guard(async () => {
      const places: { readonly from: number; readonly to: number; readonly fileOffset: number }[] = [];
      for await (const extent of layer.extents(offset, bytes.byteLength)) {
        if (extent.kind !== 'data') return false;
        const from = extent.offset - offset;
        places.push({ from, to: from + extent.lengthBytes, fileOffset: extent.fileOffset });
      }
      for (const { from, to, fileOffset } of places) await layer.file.write(bytes.subarray(from, to), fileOffset);
      for (const piece of this.#places.unknown(offset, bytes.byteLength)) await this.#learn(piece);
      return true;
    });
  }

  /** Remembers where a piece lies that has all its sectors side by side. */
  async #learn(piece: number): Promise<void> {
    const offset = piece * PIECE_BYTES;
    if (offset + PIECE_BYTES > this.info.virtualSizeBytes) return;
    for await (const extent of this.#writer.layer.extents(offset, PIECE_BYTES)) {
      const isWhole = extent.kind === 'data' && extent.lengthBytes === PIECE_BYTES;
      if (isWhole) this.#places.learn(piece, extent.fileOffset);
      return;
    }
  }

  /** A step that may change tables; the first one changes contentId. */
  #change(step: () => Promise<void>, contentId?: string): Promise<void> {
    return this.#lock.alone(() =>
      this.#guard(async () => {
        if (!this.#hasChanged) await this.#writer.beforeFirstChange(contentId);
        this.#hasChanged = true;
        await step();
      }),
    );
  }

  /** Runs a step of a change. If it fails nobody knows what the file has, and nothing is changed any more. */
  async #guard<T>(step: () => Promise<T>): Promise<T> {
    this.#assertOpen();
    try {
      return await step();
    } catch (error) {
      this.#state = 'broken';
      throw asOutputError(this.#writer.layer.file.path, error);
    }
  }

  #checkRange(offset: number, lengthBytes: number): void {
    const { virtualSizeBytes, logicalSectorBytes } = this.info;
    checkWriteRange(offset, lengthBytes, virtualSizeBytes, logicalSectorBytes);
  }

  #assertOpen(): void {
    if (this.#state === 'open') return;
    const { path } = this.#writer.layer.file;
    throw new BlockferryError('OUTPUT_FAILED', `${path}: the disk is ${this.#state}`, {
      facts: { source: path, rule: 'a disk is written while it is open, and not after an error' },
    });
  }
}
