/**
 * VhdxBytes: the bytes of a VHDX file as they are after its log has been replayed, and under the pages that a session of
 * writing has changed and not yet logged. Headers and the log itself are read from the file as it stands; everything else
 * is read through here. Nothing is ever written from here.
 */
import { alignDown } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { VHDX_FILE_BYTES_MAX } from '../limits.ts';
import type { RandomAccessFile } from '../ports.ts';
import { vhdxFault } from './vhdx-layout.ts';
import { LOG_SECTOR_BYTES } from './vhdx-log-entry.ts';
import type { ReplayOverlay } from './vhdx-replay.ts';
import { StagedPages } from './vhdx-stage.ts';

export class VhdxBytes {
  readonly file: RandomAccessFile;
  /** What replay changed; undefined if there was nothing to replay. */
  readonly overlay: ReplayOverlay | undefined;
  /** Changed pages that the file does not have; empty unless the disk is written. */
  readonly staged: StagedPages = new StagedPages();
  #fileSizeBytes: number;

  private constructor(file: RandomAccessFile, fileSizeBytes: number, overlay: ReplayOverlay | undefined) {
    this.file = file;
    this.#fileSizeBytes = fileSizeBytes;
    this.overlay = overlay;
  }

  /** The file's length, or what the log makes of it if that is more; bytes in between are zeros. */
  get sizeBytes(): number {
    return Math.max(this.#fileSizeBytes, this.overlay?.lastFileOffset ?? 0);
  }

  /** The file as it stands. @throws DISK_UNREADABLE, VHDX_IDENTIFIER for a file of impossible length */
  static async of(file: RandomAccessFile): Promise<VhdxBytes> {
    const sizeBytes = await file.sizeBytes();
    if (sizeBytes > VHDX_FILE_BYTES_MAX) {
      const rule = `a VHDX file has at most ${VHDX_FILE_BYTES_MAX} bytes`;
      throw vhdxFault('VHDX_IDENTIFIER', file.path, 0, rule, `file of ${sizeBytes} bytes`);
    }
    return new VhdxBytes(file, sizeBytes, undefined);
  }

  /** The same file under what its log changes. */
  replayed(overlay: ReplayOverlay): VhdxBytes {
    return new VhdxBytes(this.file, this.#fileSizeBytes, overlay);
  }

  /**
   * A new array with `lengthBytes` bytes from `offset`. The caller has compared both with `sizeBytes`; what lies
   * between the end of the file and there is zeros. @throws DISK_UNREADABLE, DISK_TRUNCATED
   */
  async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
    const into = Buffer.allocUnsafeSlow(lengthBytes);
    // A page that reached the file while it was read is in neither what was read nor what is staged: read again.
    for (let epoch = Number.NaN; epoch !== this.staged.epoch; ) {
      epoch = this.staged.epoch;
      const expected = Math.max(0, Math.min(lengthBytes, this.#fileSizeBytes - offset));
      into.fill(0, expected);
      if (expected > 0) await this.#fill(into.subarray(0, expected), offset);
    }
    this.overlay?.patch(into, offset);
    this.staged.patch(into, offset);
    return into;
  }

  /** Changes bytes in memory; they reach the file through the log. */
  async stage(offset: number, bytes: Uint8Array): Promise<void> {
    const end = offset + bytes.byteLength;
    for (let at = offset; at < end; ) {
      const pageOffset = alignDown(at, LOG_SECTOR_BYTES);
      const next = Math.min(end, pageOffset + LOG_SECTOR_BYTES);
      const page = this.staged.page(pageOffset) ?? (await this.read(pageOffset, LOG_SECTOR_BYTES));
      page.set(bytes.subarray(at - offset, next - offset), at - pageOffset);
      this.staged.put(pageOffset, page);
      at = next;
    }
  }

  /** The file was made longer. */
  grow(sizeBytes: number): void {
    this.#fileSizeBytes = sizeBytes;
  }

  async #fill(into: Uint8Array, offset: number): Promise<void> {
    const { path } = this.file;
    let read: number;
    try {
      read = await this.file.read(into, offset);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      const problem = `${path}: ${into.byteLength} bytes at offset ${offset} cannot be read: ${reason}`;
      throw new BlockferryError('DISK_UNREADABLE', problem, { facts: { source: path, offset }, cause });
    }
    if (read < into.byteLength) {
      const rule = 'a file keeps its length while it is read';
      const problem = `${into.byteLength} bytes expected, ${read} are there`;
      throw vhdxFault('DISK_TRUNCATED', path, offset, rule, problem);
    }
  }
}
