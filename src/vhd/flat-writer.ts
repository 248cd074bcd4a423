/**
 * FlatWriter: writes disks whose guest bytes lie in the file as they are: raw, and fixed VHD with its footer behind.
 * The file has its full size from the start and is sparse: what is never written costs no space and reads as zeros.
 */
import { checkWriteRange, type ImageFile } from './image-file.ts';
import type { DiskWriter, FileRange } from './virtual-disk.ts';

export class FlatWriter implements DiskWriter {
  readonly path: string;
  readonly #image: ImageFile;
  readonly #virtualSizeBytes: number;
  readonly #tail: Uint8Array;

  private constructor(image: ImageFile, virtualSizeBytes: number, tail: Uint8Array) {
    this.path = image.path;
    this.#image = image;
    this.#virtualSizeBytes = virtualSizeBytes;
    this.#tail = tail;
  }

  /** `tail` goes behind the guest's bytes when the disk is finished. An image that cannot be that large is removed. */
  static async start(image: ImageFile, virtualSizeBytes: number, tail: Uint8Array): Promise<FlatWriter> {
    try {
      await image.guard(() => image.file.truncate(virtualSizeBytes + tail.byteLength));
    } catch (error) {
      await image.abort();
      throw error;
    }
    return new FlatWriter(image, virtualSizeBytes, tail);
  }

  async place(offset: number, lengthBytes: number): Promise<readonly FileRange[]> {
    checkWriteRange(offset, lengthBytes, this.#virtualSizeBytes);
    this.#image.assertUsable();
    return lengthBytes === 0 ? [] : [{ file: this.#image.file, fileOffset: offset, lengthBytes }];
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    checkWriteRange(offset, bytes.byteLength, this.#virtualSizeBytes);
    await this.#image.guard(() => this.#image.file.write(bytes, offset));
  }

  async finish(): Promise<void> {
    await this.#image.guard(() => this.#image.file.write(this.#tail, this.#virtualSizeBytes));
    await this.#image.finish();
  }

  abort(): Promise<void> {
    return this.#image.abort();
  }
}
