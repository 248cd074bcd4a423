/**
 * A disk of a replica in the hands of its one writer: base and manifest under the lease and fence of a session. What writes
 * here commits in this order: slots, pages, snapshots, root. Whatever is torn before the root is invisible.
 */
import { ENTRY_BYTES, PAGE_BYTES } from '../chunker/index.ts';
import { BlockferryError } from '../errors.ts';
import type { Ports } from '../ports.ts';
import { BaseLayout } from './base.ts';
import type { ChunkRun } from './chunk-runs.ts';
import { manifestKey } from './layout.ts';
import { LiveBase } from './live-base.ts';
import { ManifestTree } from './manifest-tree.ts';
import { pageCipher, type Replica } from './replica.ts';
import { type Baseline, type DiskHead, type PointDisk, type Root, sameTables } from './root.ts';
import type { SessionBlob, WriterSession } from './writer-session.ts';

const NO_ENTRY: Uint8Array = new Uint8Array(ENTRY_BYTES);

/** Where each verb can be interrupted on its way to a commit. */
const FAILPOINTS = {
  sync: { slots: 'sync.after-slots', pages: 'sync.after-pages', snapshots: 'sync.after-snapshots' },
  apply: { slots: 'apply.after-slots', pages: 'apply.after-pages', snapshots: 'apply.after-snapshots' },
  mirror: { slots: 'mirror.after-slots', pages: 'mirror.after-pages', snapshots: 'mirror.after-snapshots' },
} as const;
type Verb = keyof typeof FAILPOINTS;

export interface LiveDisk {
  readonly base: LiveBase;
  readonly manifest: SessionBlob;
  readonly tree: ManifestTree;
}

/** Opens a disk of a replica for writing. @throws REPLICA_LEASED while somebody else writes */
export async function openLiveDisk(
  replica: Replica,
  disk: number,
  session: WriterSession,
  ports: Pick<Ports, 'random'>,
): Promise<LiveDisk> {
  const description = replica.description.disks[disk]!;
  const manifest = await session.open(manifestKey(description.id));
  if (!manifest) {
    throw new BlockferryError('REPLICA_MANIFEST', `${manifestKey(description.id)} is missing`, {
      facts: { source: manifestKey(description.id) },
      hint: 'the replica is damaged; protect the item anew under another URL',
    });
  }
  // A cancelled session does not wait for a store that is out of reach.
  const options = { signal: session.signal };
  const access = {
    read: (offset: number) => manifest.read(offset, PAGE_BYTES, options),
    write: (bytes: Uint8Array, offset: number) => manifest.write(bytes, offset, options),
  };
  const tables = replica.record.root.disks[disk]!.tables;
  const tree = new ManifestTree(description, pageCipher(replica, disk, ports), access, tables);
  return { base: new LiveBase(description.id, new BaseLayout(description), session), manifest, tree };
}

/**
 * Makes chunks [from, to) zeros, at the cost of those that are not yet: by their entries, or because what stands there is
 * `doubtful`. `allow` is waited for before anything is cleared. Returns how many had an entry.
 */
export async function clearChunks(
  { base, tree }: Pick<LiveDisk, 'base' | 'tree'>,
  { from, to }: ChunkRun,
  doubtful: Iterable<ChunkRun>,
  allow: () => Promise<void> = async () => {},
): Promise<number> {
  for (const run of doubtful) {
    await allow();
    await base.clear(run.from, run.to);
  }
  let cleared = 0;
  let run = { from: -1, to: -1 };
  const clearRun = async (): Promise<void> => {
    if (run.from < 0) return;
    await allow();
    await base.clear(run.from, run.to);
    for (let chunk = run.from; chunk < run.to; chunk += 1) await tree.setEntry(chunk, NO_ENTRY);
    cleared += run.to - run.from;
  };
  for await (const chunk of tree.usedChunks(from, to)) {
    if (chunk !== run.to) {
      await clearRun();
      run = { from: chunk, to: chunk };
    }
    run.to = chunk + 1;
  }
  await clearRun();
  return cleared;
}

/** Makes a disk's acknowledged slots durable, then writes its changed pages; returns what `disks` of the next root are. */
export async function flushLiveDisk(
  root: Pick<Root, 'generation' | 'disks'>,
  live: readonly LiveDisk[],
  disk: number,
  verb: Verb,
  ports: Ports,
): Promise<readonly DiskHead[]> {
  const { base, tree, manifest } = live[disk]!;
  await base.flush();
  await ports.failpoint(FAILPOINTS[verb].slots);
  const tables = await tree.flush(root.generation + 1);
  await manifest.flush();
  await ports.failpoint(FAILPOINTS[verb].pages);
  return root.disks.map((state, i) => (i === disk ? { ...state, tables } : state));
}

/** The same of all disks. */
export async function flushLiveDisks(
  root: Pick<Root, 'generation' | 'disks'>,
  live: readonly LiveDisk[],
  verb: Verb,
  ports: Ports,
): Promise<readonly DiskHead[]> {
  let { disks } = root;
  for (let disk = 0; disk < live.length; disk += 1) {
    disks = await flushLiveDisk({ generation: root.generation, disks }, live, disk, verb, ports);
  }
  return disks;
}

/** Flushes everything and freezes all blobs; returns the baseline that the next root can name, and its `disks`. */
export async function freezeLiveDisks(
  root: Root,
  live: readonly LiveDisk[],
  appliedLog: number,
  verb: Verb,
  ports: Ports,
): Promise<{ readonly disks: readonly DiskHead[]; readonly baseline: Baseline }> {
  const disks = await flushLiveDisks(root, live, verb, ports);
  const before = root.baselines.at(-1)?.disks;
  const frozen: PointDisk[] = [];
  for (const [i, disk] of live.entries()) frozen.push(await freeze(disks[i]!, disk, before?.[i]));
  await ports.failpoint(FAILPOINTS[verb].snapshots);
  return { disks, baseline: { generation: root.generation + 1, appliedLog, disks: frozen } };
}

/** The snapshots of a disk; those of the newest baseline serve again if nothing was changed since. */
async function freeze(
  { tables }: DiskHead,
  { base, manifest }: LiveDisk,
  before: PointDisk | undefined,
): Promise<PointDisk> {
  if (before && !base.changed && sameTables(before.tables, tables)) return before;
  return { tables, baseSnapshots: await base.snapshot(), manifestSnapshot: await manifest.snapshot() };
}
