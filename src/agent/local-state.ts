/**
 * Local state of one item: `<home>/items/<name>/`.
 *
 *     item.json    what the item is: replica, store, disks, lease id, where its key came from
 *     anchor.json  generation and hash of the last root seen: finds a replica that was rolled back
 *     master.key   the master key, mode 0600: this machine holds the disks in the clear anyway
 *     rate.json    rates of the last transfers, for estimates
 *     replica.json what the replica is, as the store has it
 *     tracking/    state of the tracker, its dirty maps and sockets (src/tracker/tracking-state.ts)
 *     lock-N       who is working on the item (src/host/process-lock.ts)
 *
 * None of it is needed to get the data back: the store's URL and a key are enough. Files are replaced atomically.
 */
import { join } from 'node:path';
import { BlockferryError } from '../errors.ts';
import { REPLICA_JSON_BYTES_MAX, STORES_MAX } from '../limits.ts';
import type { FileSystem } from '../ports.ts';
import {
  type Anchor,
  canonicalJson,
  decodeDescription,
  encodeDescription,
  isSafeFileName,
  JsonReader,
  type ReplicaDescription,
  ROOT_HASH_BYTES,
  SIDE_BYTES,
} from '../replica/index.ts';
import type { DiskFormat } from '../vhd/index.ts';
import type { KeySource } from './types.ts';

const STATE_BYTES_MAX = 1 << 20;
const COUNT_MAX = Number.MAX_SAFE_INTEGER;

export interface ItemState {
  readonly name: string;
  readonly replicaId: Uint8Array;
  readonly url: string;
  /** Further stores, each of which follows the one before it (docs/mirror.md). */
  readonly also?: readonly string[];
  /** Absolute paths, in the order of the replica's disks. */
  readonly disks: readonly string[];
  /**
   * What each disk was when it was protected. A guest can write the marks of a VHD into a raw disk, so a format is
   * recognised by content only once.
   */
  readonly formats: readonly DiskFormat[];
  /** The one lease id of this home: after a kill the next process takes the lease again without waiting. */
  readonly leaseId: string;
  readonly keys: readonly KeySource[];
  /** Id of these disks as a side (docs/life.md). */
  readonly side: Uint8Array;
  /** Disks that were the truth before a failover in this home: where a failback goes. */
  readonly former?: { readonly disks: readonly string[]; readonly formats: readonly DiskFormat[] };
}

/** How fast the last transfers were, in whole bytes; what was never measured is missing. */
export interface TransferRates {
  /** Bytes of the disks read, per second of reading. */
  readonly readBytesPerSecond?: number;
  /** Bytes of the disks that went to the store, before compression, per second of sending. */
  readonly sentBytesPerSecond?: number;
}

/** The directory of one item. */
export class LocalItem {
  readonly name: string;
  readonly directory: string;
  readonly #files: FileSystem;

  constructor(home: string, name: string, files: FileSystem) {
    if (!isSafeFileName(name) || name.length > 128) {
      throw new BlockferryError('USAGE', `"${name}" cannot be the name of an item`, {
        facts: { name },
        hint: 'use up to 128 letters, digits, blanks, dots, hyphens and underscores, not beginning with a dot',
      });
    }
    this.name = name;
    this.directory = join(home, 'items', name);
    this.#files = files;
  }

  /** Names of all items of a home. */
  static async names(home: string, files: FileSystem): Promise<readonly string[]> {
    const entries = await files.list(join(home, 'items'));
    return entries.filter((entry) => entry.kind === 'directory').map((entry) => entry.name);
  }

  /** @throws ITEM_NOT_FOUND if nothing is known of it. */
  async load(): Promise<ItemState> {
    const state = await this.find();
    if (state) return state;
    throw new BlockferryError('ITEM_NOT_FOUND', `there is no item "${this.name}" in ${this.directory}`, {
      facts: { name: this.name },
      hint: 'protect it first, or name the replica by its URL: --from URL',
    });
  }

  async find(): Promise<ItemState | undefined> {
    const path = join(this.directory, 'item.json');
    const bytes = await this.#files.readSmall(path, STATE_BYTES_MAX);
    if (!bytes) return undefined;
    const json = JsonReader.parse(bytes, path, 'LOCAL_STATE');
    const former = json.optional('former');
    const also = json.optional('also')?.list(STORES_MAX);
    return {
      name: json.field('name').string(128),
      replicaId: json.field('replicaId').hex(16),
      url: json.field('url').string(4096),
      ...(also ? { also: also.map((url) => url.string(4096)) } : {}),
      ...readDisks(json),
      leaseId: json.field('leaseId').string(64),
      keys: readKeySources(json.field('keys')),
      side: json.field('side').hex(SIDE_BYTES),
      ...(former ? { former: readDisks(former) } : {}),
    };
  }

  async save(state: ItemState): Promise<void> {
    const { replicaId, side, former, also, ...rest } = state;
    const keys = state.keys.map((key) => ({ ...key }));
    const body = {
      ...rest,
      replicaId: hex(replicaId),
      side: hex(side),
      former: former && { ...former },
      also: also && [...also],
      keys,
    };
    await this.#replace('item.json', body);
  }

  async loadAnchor(): Promise<Anchor | undefined> {
    const path = join(this.directory, 'anchor.json');
    const bytes = await this.#files.readSmall(path, STATE_BYTES_MAX);
    if (!bytes) return undefined;
    const json = JsonReader.parse(bytes, path, 'LOCAL_STATE');
    return {
      generation: json.field('generation').integer(1, COUNT_MAX),
      hash: json.field('hash').hex(ROOT_HASH_BYTES),
    };
  }

  async saveAnchor({ generation, hash }: Anchor): Promise<void> {
    await this.#replace('anchor.json', { generation, hash: hex(hash) });
  }

  async loadMaster(): Promise<Uint8Array | undefined> {
    return this.#files.readSmall(join(this.directory, 'master.key'), 64);
  }

  async saveMaster(master: Uint8Array): Promise<void> {
    await this.#files.replace(join(this.directory, 'master.key'), master, { ownerOnly: true });
  }

  /** What the replica is, for a tracker that starts while the store is out of reach. */
  async loadDescription(): Promise<ReplicaDescription | undefined> {
    const path = join(this.directory, 'replica.json');
    const bytes = await this.#files.readSmall(path, REPLICA_JSON_BYTES_MAX);
    return bytes && decodeDescription(bytes, path);
  }

  /** Saved once: a replica is what it is from its creation on. */
  async saveDescription(description: ReplicaDescription): Promise<void> {
    const path = join(this.directory, 'replica.json');
    if (await this.#files.exists(path)) return;
    await this.#files.replace(path, encodeDescription(description));
  }

  async loadRates(): Promise<TransferRates> {
    const path = join(this.directory, 'rate.json');
    const bytes = await this.#files.readSmall(path, STATE_BYTES_MAX);
    if (!bytes) return {};
    const json = JsonReader.parse(bytes, path, 'LOCAL_STATE');
    const read = json.optional('readBytesPerSecond')?.integer(1, COUNT_MAX);
    const sent = json.optional('sentBytesPerSecond')?.integer(1, COUNT_MAX);
    return {
      ...(read === undefined ? {} : { readBytesPerSecond: read }),
      ...(sent === undefined ? {} : { sentBytesPerSecond: sent }),
    };
  }

  async saveRates(rates: TransferRates): Promise<void> {
    await this.#replace('rate.json', { ...rates });
  }

  /** For its owner alone: the URL of a store may carry a SAS. */
  async #replace(name: string, body: Parameters<typeof canonicalJson>[0]): Promise<void> {
    const bytes = Buffer.from(`${canonicalJson(body)}\n`);
    await this.#files.replace(join(this.directory, name), bytes, { ownerOnly: true });
  }
}

function readDisks(json: JsonReader): Pick<ItemState, 'disks' | 'formats'> {
  return {
    disks: json
      .field('disks')
      .list(64)
      .map((disk) => disk.string(4096)),
    formats: json
      .field('formats')
      .list(64)
      .map((format) => format.oneOf(['raw', 'vhd', 'vhdx'])),
  };
}

/** The keys that a state of this home names. */
export function readKeySources(json: JsonReader): readonly KeySource[] {
  return json.list(64).map((key) => ({
    type: key.field('type').oneOf(['key-file', 'passphrase-file', 'certificate']),
    path: key.field('path').string(4096),
  }));
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
