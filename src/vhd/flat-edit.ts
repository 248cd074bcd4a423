/**
 * FlatEditor: writes disks in place whose guest bytes lie in the file as they are: raw, and fixed VHD. There is nothing
 * to allocate and nothing to mark, so the file is as safe as its sectors.
 */
import type { Layer } from './layer.ts';
import type { LayerWriter } from './layer-writer.ts';
import { writeZeros } from './zeros.ts';

export class FlatEditor implements LayerWriter {
  readonly layer: Layer;
  readonly isFlat = true;
  readonly hasPending = false;

  constructor(layer: Layer) {
    this.layer = layer;
  }

  get contentId(): string {
    return this.layer.contentId;
  }

  async beforeFirstChange(): Promise<void> {}

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    await this.layer.file.write(bytes, offset);
  }

  async zero(offset: number, lengthBytes: number): Promise<void> {
    await writeZeros(this.layer.file, offset, offset + lengthBytes);
  }

  async flush(): Promise<void> {
    await this.layer.file.sync();
  }

  async finish(): Promise<void> {}
}
