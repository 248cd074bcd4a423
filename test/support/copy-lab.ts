/**
 * A protected item whose disks are written while they are copied, with the model of a tracker: the log of every write
 * since the copy began, and the chunks that may differ from the live base.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { protect } from '../../src/agent/index.ts';
import { withDisks, withOwn, withWorkers, withWriter } from '../../src/agent/open-item.ts';
import { chunkRuns } from '../../src/replica/chunk-runs.ts';
import {
  type ChunkRun,
  type Layout,
  type RecoveryPoint,
  type Replica,
  type SyncNotice,
  type SyncResult,
  sync,
  type TrackedCopy,
} from '../../src/replica/index.ts';
import { baselineOf } from '../../src/replica/root.ts';
import type { Extent, VirtualDisk } from '../../src/vhd/index.ts';
import type { Dice } from './dice.ts';
import { CHUNK, Lab, readReplicaDisk, STORE_URL } from './replica-lab.ts';

interface LoggedWrite {
  readonly disk: number;
  readonly offset: number;
  readonly bytes: Buffer;
}

export interface CopyOptions {
  readonly only?: readonly (readonly ChunkRun[])[] | undefined;
  readonly tracked?: TrackedCopy | undefined;
  readonly full?: boolean;
  readonly signal?: AbortSignal;
  /** Runs whenever the source is asked for extents, and once more when it has told them. */
  readonly onExtents?: () => void;
  readonly onNotice?: (notice: SyncNotice) => void;
}

export class CopyLab {
  readonly lab: Lab = new Lab();
  /** The disks as they are now. */
  readonly contents: readonly Buffer[];
  readonly notices: SyncNotice[] = [];
  /** Every write since `begin`. */
  log: LoggedWrite[] = [];
  /** Chunks that may differ from the live base. */
  readonly dirty: readonly Set<number>[];
  tracked: TrackedCopy;
  readonly #descriptors: readonly number[];
  #epochs = 0;

  static async create(layout: Layout, contents: readonly Buffer[]): Promise<CopyLab> {
    const copy = new CopyLab(contents);
    const disks = contents.map((content, i) => copy.lab.disk(`disk${i}.img`, content));
    const { session } = copy.lab;
    await protect(session, { name: 'web', disks, url: STORE_URL, chunkBytes: CHUNK, layout, keys: [] });
    return copy;
  }

  private constructor(contents: readonly Buffer[]) {
    this.contents = contents.map((content) => Buffer.from(content));
    this.#descriptors = contents.map((content, i) => openSync(this.lab.disk(`disk${i}.img`, content), 'r+'));
    this.dirty = contents.map(() => new Set());
    this.tracked = this.#newEpoch();
  }

  close(): void {
    for (const descriptor of this.#descriptors) closeSync(descriptor);
    this.lab.close();
  }

  /** A write of the guest. */
  write(disk: number, offset: number, bytes: Buffer): void {
    writeSync(this.#descriptors[disk]!, bytes, 0, bytes.byteLength, offset);
    bytes.copy(this.contents[disk]!, offset);
    this.log.push({ disk, offset, bytes: Buffer.from(bytes) });
  }

  /** Some random write: small or large, zeros, or what stood there in another version of the disk. */
  writeAnything(dice: Dice, other: readonly Buffer[]): void {
    const disk = dice.below(this.contents.length);
    const { byteLength } = this.contents[disk]!;
    const sectors = dice.oneIn(4) ? dice.between(1, 200) : dice.between(1, 12);
    const offset = dice.below(byteLength / 512) * 512;
    const lengthBytes = Math.min(sectors * 512, byteLength - offset);
    const choice = dice.below(5);
    if (choice === 0) this.write(disk, offset, Buffer.alloc(lengthBytes));
    else if (choice === 1) this.write(disk, offset, other[disk]!.subarray(offset, offset + lengthBytes));
    else this.write(disk, offset, dice.bytes(lengthBytes));
  }

  /** Logs begin anew, and all that was written since they began before may differ from the live base. */
  begin(): void {
    for (const { disk, offset, bytes } of this.log) {
      const last = Math.floor((offset + bytes.byteLength - 1) / CHUNK);
      for (let chunk = Math.floor(offset / CHUNK); chunk <= last; chunk += 1) this.dirty[disk]!.add(chunk);
    }
    this.log = [];
    this.tracked = this.#newEpoch();
  }

  /** The chunks that may differ, as a tracker tells them. */
  runs(): readonly (readonly ChunkRun[])[] {
    return this.dirty.map((chunks) => chunkRuns([...chunks].sort((a, b) => a - b)));
  }

  /** A sync; tracked, over the dirty chunks, unless it is told otherwise. After it nothing is dirty but by the log. */
  async copy(options: CopyOptions = {}): Promise<SyncResult> {
    const onNotice = (notice: SyncNotice): unknown => this.notices.push(notice);
    const result = await copyItem(this.lab, { tracked: this.tracked, only: this.runs(), onNotice, ...options });
    for (const chunks of this.dirty) chunks.clear();
    return result;
  }

  /** What the newest baseline holds. */
  async baseline(): Promise<readonly Buffer[]> {
    const replica = await this.lab.replica();
    const { disks } = replica.record.root.baselines.at(-1)!;
    return Promise.all(disks.map((state, i) => readReplicaDisk(replica, i, state, this.lab.ports)));
  }

  /** What a baseline becomes when the log is played over it. */
  replayed(baseline: readonly Buffer[]): readonly Buffer[] {
    const contents = baseline.map((content) => Buffer.from(content));
    for (const { disk, offset, bytes } of this.log) bytes.copy(contents[disk]!, offset);
    return contents;
  }

  /** What a point that has no logs holds. */
  async point(replica: Replica, point: RecoveryPoint): Promise<readonly Buffer[]> {
    const { disks } = baselineOf(replica.record.root, point);
    return Promise.all(disks.map((state, i) => readReplicaDisk(replica, i, state, this.lab.ports)));
  }

  #newEpoch(): TrackedCopy {
    this.#epochs += 1;
    const heads = this.contents.map((_, i) => `00000000-0000-0000-000${i}-${String(this.#epochs).padStart(12, '0')}`);
    return { epoch: Buffer.alloc(32, this.#epochs), heads };
  }
}

/** Syncs the item of a lab. */
export function copyItem({ session, ports }: Lab, options: CopyOptions): Promise<SyncResult> {
  const { tracked, only, full = false, signal, onExtents, onNotice } = options;
  const cancellable = signal ? { ...session, signal } : session;
  return withOwn(cancellable, 'web', (own) =>
    withDisks(cancellable, own.state, (disks) =>
      withWorkers(cancellable, own.replica, (pool) =>
        withWriter(cancellable, own, ({ committer, session: writer }) =>
          sync({
            ...{ committer, side: own.state.side, session: writer, pool, full, ports, signal: writer.signal },
            sources: disks.map((disk) => watched(disk, onExtents)),
            ...(tracked ? { tracked } : {}),
            ...(only ? { only } : {}),
            ...(onNotice ? { onNotice } : {}),
          }),
        ),
      ),
    ),
  );
}

/** Whether two sets of disks hold the same bytes. */
export function sameContents(a: readonly Buffer[], b: readonly Buffer[]): boolean {
  return a.length === b.length && a.every((content, i) => content.equals(b[i]!));
}

function watched(disk: VirtualDisk, onExtents: (() => void) | undefined): VirtualDisk {
  const { info, identity, contentId, files } = disk;
  return {
    ...{ info, identity, contentId, files },
    async *extents(offset: number, lengthBytes: number): AsyncGenerator<Extent> {
      onExtents?.();
      yield* disk.extents(offset, lengthBytes);
      onExtents?.();
    },
    read: (into, offset) => disk.read(into, offset),
    close: () => disk.close(),
  };
}
