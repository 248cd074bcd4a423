/**
 * Everything a store holds of one replica, as bytes in memory that a test may change: the view of somebody who can read,
 * change, move, shorten and replay anything in the account. Reads only.
 */
import { BlockferryError } from '../../src/errors.ts';
import type { Ports } from '../../src/ports.ts';
import {
  baseKey,
  DESCRIPTION_KEY,
  KEYRING_KEY,
  logKey,
  manifestKey,
  ROOT_KEY,
  type Root,
} from '../../src/replica/index.ts';
import {
  type ObjectReadOptions,
  type PageBlob,
  type ReadOptions,
  Retry,
  RetryingStore,
  type Store,
} from '../../src/transport/index.ts';

const OBJECTS = [DESCRIPTION_KEY, KEYRING_KEY, ROOT_KEY] as const;

export class CapturedStore {
  /** replica.json, keyring.json, root and shipped logs, by key. */
  readonly objects: Map<string, Buffer> = new Map();
  /** Content of snapshots, by `key snapshot`. */
  readonly blobs: Map<string, Buffer> = new Map();

  /** Copies the objects, and the blobs and logs that `root` names. */
  static async of(store: Store, root: Root): Promise<CapturedStore> {
    const captured = new CapturedStore();
    await captured.#add(store, root);
    return captured;
  }

  /** The same bytes once more, to be changed on their own. */
  copy(): CapturedStore {
    const copy = new CapturedStore();
    for (const [key, bytes] of this.objects) copy.objects.set(key, Buffer.from(bytes));
    for (const [key, bytes] of this.blobs) copy.blobs.set(key, Buffer.from(bytes));
    return copy;
  }

  /** As the verbs take it. */
  open(ports: Pick<Ports, 'clock' | 'random'>): RetryingStore {
    const store = {
      url: 'captured:',
      get: async (key: string, maxBytes: number) => {
        const bytes = this.objects.get(key);
        if (bytes && bytes.byteLength > maxBytes) throw new BlockferryError('STORE_REFUSED', `${key} is too long`);
        return bytes && { bytes, etag: '1' };
      },
      read: async (key: string, offset: number, lengthBytes: number, { sizeBytes }: ObjectReadOptions = {}) => {
        const bytes = this.objects.get(key);
        if (!bytes) throw new BlockferryError('STORE_NOT_FOUND', `there is no ${key}`);
        const fits = offset + lengthBytes <= bytes.byteLength && (sizeBytes ?? bytes.byteLength) === bytes.byteLength;
        if (!fits) throw new RangeError(`${key} has ${bytes.byteLength} bytes`);
        return bytes.subarray(offset, offset + lengthBytes);
      },
      pages: (key: string) => this.#pages(key),
    };
    return new RetryingStore(store as Partial<Store> as Store, new Retry(ports));
  }

  #pages(key: string): PageBlob {
    const read = async (offset: number, lengthBytes: number, options: ReadOptions = {}): Promise<Uint8Array> => {
      const bytes = this.blobs.get(`${key} ${options.snapshot}`);
      if (!bytes) throw new BlockferryError('STORE_NOT_FOUND', `${key} has no snapshot ${options.snapshot}`);
      if (offset + lengthBytes > bytes.byteLength) throw new RangeError(`${key}: ${offset} is outside the blob`);
      return bytes.subarray(offset, offset + lengthBytes);
    };
    return { key, read } as Partial<PageBlob> as PageBlob;
  }

  async #add(store: Store, root: Root): Promise<void> {
    for (const key of OBJECTS) this.objects.set(key, Buffer.from((await store.get(key, 1 << 24))!.bytes));
    for (const log of root.logs) {
      this.objects.set(logKey(log), Buffer.from(await store.read(logKey(log), 0, log.sizeBytes)));
    }
    for (const baseline of root.baselines) {
      for (const [disk, { manifestSnapshot, baseSnapshots }] of baseline.disks.entries()) {
        await this.#addBlob(store, manifestKey(`d${disk}`), manifestSnapshot);
        for (const { segment, snapshot } of baseSnapshots)
          await this.#addBlob(store, baseKey(`d${disk}`, segment), snapshot);
      }
    }
  }

  async #addBlob(store: Store, key: string, snapshot: string): Promise<void> {
    const blob = store.pages(key);
    const { sizeBytes } = (await blob.state())!;
    this.blobs.set(`${key} ${snapshot}`, Buffer.from(await blob.read(0, sizeBytes, { snapshot })));
  }
}
