/**
 * protect: prerequisites, relationship, initial replication.
 *
 * Safe to repeat: interrupted at any instant, the same command goes on where it stood. The item's local state is saved
 * before anything is created in the store, so what an interrupted creation left there is known to be ours.
 */
import { basename, isAbsolute, join, resolve } from 'node:path';
import { checkChunkBytes } from '../chunker/index.ts';
import { BlockferryError } from '../errors.ts';
import { guidBytes, randomGuid } from '../guid.ts';
import { CHUNK_BYTES_DEFAULT, DISKS_PER_ITEM_MAX, PAGE_BLOB_BYTES_MAX, STORES_MAX } from '../limits.ts';
import {
  claimPlace,
  createKeyring,
  createReplica,
  type DiskDescription,
  fitsRaw,
  foreign,
  generateKeyFile,
  isSafeFileName,
  isTaken,
  MASTER_KEY_BYTES,
  type ReplicaDescription,
  SIDE_BYTES,
} from '../replica/index.ts';
import type { RetryingStore } from '../transport/index.ts';
import type { VirtualDisk } from '../vhd/index.ts';
import { bringCurrent } from './bring-current.ts';
import { createBlobs } from './create-blobs.ts';
import { loadKeys } from './key-sources.ts';
import { type ItemState, LocalItem } from './local-state.ts';
import { openOwn, publicUrl, sessionSignal, withDisks, withLock, withStore } from './open-item.ts';
import { withReasons } from './refuse.ts';
import { trackedItem, withTracking } from './tracking.ts';
import type { KeySource, ProtectRequest, Session, SyncReport } from './types.ts';

/** Protects an item, or resumes its first replication; a protected item is synced once more. */
export function protect(session: Session, request: ProtectRequest): Promise<SyncReport> {
  return withReasons(session, request.name, 'protect', () => copy(session, request));
}

async function copy(session: Session, request: ProtectRequest): Promise<SyncReport> {
  const item = new LocalItem(session.home, request.name, session.ports.files);
  const paths = diskPaths(request);
  return withLock(session, item, async () => {
    const existing = await item.find();
    if (existing) checkSame(existing, request, paths);
    return withDisks(session, existing ?? { disks: paths }, (disks) =>
      withStore(session, request.url, async (store) => {
        const state = existing
          ? await renew(session, item, existing, request)
          : await begin(session, item, request, paths, disks, store);
        await createIfMissing(session, item, state, request, disks, store);
        const own = await openOwn(session, item, state, store);
        checkUnchanged(own.replica.description, request);
        const first = own.replica.record.root.points.length === 0;
        const tracked = trackedItem(session, item, state, own.replica.description);
        return withTracking(tracked, (tracking) =>
          bringCurrent(session, own, tracking, { phase: first ? 'initial' : 'resync' }),
        );
      }),
    );
  });
}

function diskPaths({ disks }: ProtectRequest): readonly string[] {
  const paths = disks.map((path) => (isAbsolute(path) ? path : resolve(path)));
  if (paths.length === 0 || paths.length > DISKS_PER_ITEM_MAX) {
    throw new BlockferryError('USAGE', `${paths.length} disks are outside 1 to ${DISKS_PER_ITEM_MAX}`);
  }
  const twice = paths.find((path, i) => paths.indexOf(path) !== i);
  if (twice !== undefined) throw new BlockferryError('USAGE', `${twice} is named twice`, { facts: { source: twice } });
  return paths;
}

/** The first time: refuses a replica of somebody else, then saves what the item is. */
async function begin(
  session: Session,
  item: LocalItem,
  request: ProtectRequest,
  paths: readonly string[],
  disks: readonly VirtualDisk[],
  store: RetryingStore,
): Promise<ItemState> {
  const signal = sessionSignal(session);
  await store.prepare({ signal });
  if (await isTaken(store, { signal })) throw foreign(store);
  const keys = request.keys.length > 0 ? request.keys.map(absoluteKey) : [await makeKey(session, item)];
  const state: ItemState = {
    name: request.name,
    replicaId: session.ports.random.bytes(16),
    url: request.url,
    ...(request.also ? { also: checkAlso(request) } : {}),
    disks: paths,
    formats: disks.map(({ info }) => info.format),
    leaseId: randomGuid(session.ports.random.bytes(16)).toLowerCase(),
    keys,
    side: session.ports.random.bytes(SIDE_BYTES),
  };
  // Whatever is wrong with the request is found out before any of it is remembered.
  describe(session, state, request, disks);
  await loadKeys(keys, session.ports);
  // Before the claim, so that an interrupted creation is recognised as ours.
  await item.saveMaster(session.ports.random.bytes(MASTER_KEY_BYTES));
  await item.save(state);
  return state;
}

/** The further stores. @throws USAGE for a store that is named twice, or too many */
function checkAlso({ url, also = [] }: ProtectRequest): readonly string[] {
  const stores = [url, ...also].map(publicUrl);
  const twice = stores.find((store, i) => stores.indexOf(store) !== i);
  if (twice !== undefined) throw new BlockferryError('USAGE', `${twice} is named twice`, { facts: { url: twice } });
  if (stores.length <= STORES_MAX) return also;
  throw new BlockferryError('USAGE', `${stores.length} stores are more than ${STORES_MAX}`);
}

const absoluteKey = ({ type, path }: KeySource): KeySource => ({ type, path: resolve(path) });

/** No key was named: make one, and say that it must not stay on this machine alone. */
async function makeKey(session: Session, item: LocalItem): Promise<KeySource> {
  const path = join(item.directory, `${item.name}.key`);
  if (!(await session.ports.files.exists(path))) await generateKeyFile(path, session.ports);
  session.onEvent?.({ type: 'notice', code: 'KEY_MADE', message: `made the key file ${path}` });
  return { type: 'key-file', path };
}

function checkSame(state: ItemState, { name, url }: ProtectRequest, paths: readonly string[]): void {
  const sameDisks = state.disks.length === paths.length && state.disks.every((disk, i) => disk === paths[i]);
  if (sameDisks && publicUrl(state.url) === publicUrl(url)) return;
  throw new BlockferryError('USAGE', `item "${name}" is protected already, with other disks or to another store`, {
    facts: { name },
    hint: `its disks are ${state.disks.join(', ')}; use another name for another replica`,
  });
}

/** A known item named again: its URL may carry a new SAS, and until its replica exists its keys may be others. */
async function renew(
  session: Session,
  item: LocalItem,
  existing: ItemState,
  request: ProtectRequest,
): Promise<ItemState> {
  const { url, keys: named } = request;
  const keys = named.map(absoluteKey);
  const same = keys.every(({ type, path }) => existing.keys.some((key) => key.type === type && key.path === path));
  if (!same && (await item.loadAnchor())) {
    throw new BlockferryError('USAGE', `item "${existing.name}" is protected already, under other keys`, {
      facts: { name: existing.name },
      hint: 'leave the key out; to change the keys of a replica use blockferry key add and key remove',
    });
  }
  await loadKeys(same ? [] : keys, session.ports);
  const also = request.also ? { also: checkAlso(request) } : {};
  const state = { ...existing, url, ...also, keys: same ? existing.keys : keys };
  await item.save(state);
  return state;
}

/** What was decided when the replica was created stays. */
function checkUnchanged(description: ReplicaDescription, request: ProtectRequest): void {
  const disk = description.disks[0]!;
  const choices = [
    ['layout', disk.layout, request.layout],
    ['chunk size', disk.chunkBytes, request.chunkBytes],
    ['fingerprint', description.fingerprint, request.fingerprint],
    ['compression', description.compression, request.compression],
  ] as const;
  const other = choices.find(([, is, wanted]) => wanted !== undefined && wanted !== is);
  if (!other) return;
  const [what, is, wanted] = other;
  throw new BlockferryError('USAGE', `the replica of item "${description.item}" has ${what} ${is}, not ${wanted}`, {
    facts: { what, is, wanted: wanted ?? '' },
    hint: 'leave the option out to go on with this replica, or protect under another name to another URL',
  });
}

/** Creates the replica, or ends its creation. Once a root of it was seen here, a missing one is damage. */
async function createIfMissing(
  session: Session,
  item: LocalItem,
  state: ItemState,
  request: ProtectRequest,
  disks: readonly VirtualDisk[],
  store: RetryingStore,
): Promise<void> {
  const { ports } = session;
  const options = { signal: sessionSignal(session) };
  const master = await item.loadMaster();
  if (!master || (await item.loadAnchor())) return;
  const description = describe(session, state, request, disks);
  const materials = await loadKeys(state.keys, ports);
  await store.prepare(options);
  const claim = await claimPlace(store, master, { disks: disks.length, side: state.side }, ports, options);
  if (!claim) return;
  const keyring = await createKeyring(master, materials, ports.random);
  await createReplica(
    store,
    claim,
    description,
    keyring,
    () => createBlobs(session, store, description),
    ports,
    options,
  );
  const keys = state.keys.map(({ path }) => path).join(', ');
  const message = `keep a copy of ${keys} on another machine: without one of them the replica can never be opened`;
  session.onEvent?.({ type: 'notice', code: 'KEEP_KEYS', message });
}

function describe(
  { ports }: Session,
  state: ItemState,
  { layout = 'sealed', chunkBytes = CHUNK_BYTES_DEFAULT, fingerprint = 'xxh128', compression = 'lz4' }: ProtectRequest,
  disks: readonly VirtualDisk[],
): ReplicaDescription {
  try {
    checkChunkBytes(chunkBytes);
  } catch (cause) {
    throw new BlockferryError('USAGE', (cause as Error).message, { cause });
  }
  const described = disks.map(({ info }, i): DiskDescription => {
    const path = state.disks[i]!;
    const { virtualSizeBytes } = info;
    const logicalSectorBytes = info.logicalSectorBytes === 4096 ? 4096 : 512;
    const physicalSectorBytes = info.physicalSectorBytes === 4096 ? 4096 : 512;
    if (layout === 'raw' && !fitsRaw(virtualSizeBytes)) throw tooLargeForRaw(path, virtualSizeBytes);
    const name = isSafeFileName(basename(path)) ? basename(path) : `disk${i}`;
    const guid = guidBytes(randomGuid(ports.random.bytes(16)));
    return { id: `d${i}`, guid, virtualSizeBytes, logicalSectorBytes, physicalSectorBytes, chunkBytes, layout, name };
  });
  const { replicaId, name: item } = state;
  return { replicaId, item, createdMs: ports.clock.nowMs(), fingerprint, compression, disks: described };
}

function tooLargeForRaw(path: string, virtualSizeBytes: number): BlockferryError {
  return new BlockferryError(
    'UNSUPPORTED',
    `${path} has ${virtualSizeBytes} bytes, a raw base is one page blob of at most ${PAGE_BLOB_BYTES_MAX}`,
    {
      facts: { source: path, virtualSizeBytes },
      hint: 'protect it with --layout sealed, which takes disks up to 64 TiB',
    },
  );
}
