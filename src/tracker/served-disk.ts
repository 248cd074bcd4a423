/**
 * ServedDisk: a disk that a tracker in another process is writing, open for reading.
 *
 * Its files are read here, by descriptor; where the bytes lie is asked of the tracker each time, because its writes move
 * them. What is read is a mixture of moments after the question was asked first; the log has every write since then.
 */
import type { Ports, RandomAccessFile } from '../ports.ts';
import type { DiskInfo, Extent, VirtualDisk } from '../vhd/index.ts';
import type { ControlClient } from './control-client.ts';
import type { ControlCalls, WireExtent } from './control-protocol.ts';

export class ServedDisk implements VirtualDisk {
  readonly info: DiskInfo;
  readonly identity: string;
  readonly contentId: string;
  readonly files: readonly RandomAccessFile[];
  readonly #client: ControlClient;
  readonly #index: number;

  private constructor(
    { info, identity, contentId }: ControlCalls['describe']['gives'],
    files: readonly RandomAccessFile[],
    client: ControlClient,
    index: number,
  ) {
    this.info = info;
    this.identity = identity;
    this.contentId = contentId;
    this.files = files;
    this.#client = client;
    this.#index = index;
  }

  /** Opens disk number `index` of the item that the tracker serves. Its tables are not read here: they are being changed. */
  static async open(client: ControlClient, index: number, { files }: Pick<Ports, 'files'>): Promise<ServedDisk> {
    const described = await client.call('describe', { disk: index });
    const opened: RandomAccessFile[] = [];
    try {
      for (const path of described.info.chain) opened.push(await files.open(path, 'read'));
      return new ServedDisk(described, opened, client, index);
    } catch (error) {
      await Promise.all(opened.map((file) => file.close()));
      throw error;
    }
  }

  async *extents(offset: number, lengthBytes: number): AsyncGenerator<Extent> {
    const end = offset + lengthBytes;
    for (let at: number | undefined = offset; at !== undefined && at < end; ) {
      const page: ControlCalls['extents']['gives'] = await this.#client.call('extents', {
        disk: this.#index,
        offset: at,
        lengthBytes: end - at,
      });
      for (const extent of page.extents) yield this.#local(extent);
      at = page.nextOffset;
    }
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    for await (const extent of this.extents(offset, into.byteLength)) {
      const from = extent.offset - offset;
      const target = into.subarray(from, from + extent.lengthBytes);
      if (extent.kind === 'memory') {
        target.set(extent.bytes);
        continue;
      }
      // Beyond the end of the file, and where there is no file, are zeros.
      const gotBytes = extent.kind === 'data' ? await extent.file.read(target, extent.fileOffset) : 0;
      target.fill(0, gotBytes);
    }
  }

  async close(): Promise<void> {
    for (const file of this.files) await file.close();
  }

  #local(extent: WireExtent): Extent {
    if (extent.kind === 'data') return { ...extent, file: this.files[extent.depth]! };
    if (extent.kind === 'memory') return { ...extent, bytes: Buffer.from(extent.bytes, 'base64') };
    return extent;
  }
}
