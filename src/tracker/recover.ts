/**
 * Opening the tracking of an item, whatever the last run left.
 *
 * After a clean end the disks must be what they were then. After a crash the logs are recovered to their valid prefixes and
 * closed; what they may lack lies in chunks that were active, and is read from the disk and appended to the next log
 * (*bridging*) before anyone is served. Where logs, map or disk cannot be trusted, the item becomes `resync required` with
 * the reason, and the map says what to compare. Nothing is ever tracked less than before.
 */
import { createHash } from 'node:crypto';
import { MIB } from '../bytes.ts';
import { isBlockferryError } from '../errors.ts';
import { randomGuid } from '../guid.ts';
import { ChangeLog, type LogWriter, sealLog } from '../hrl/index.ts';
import type { Ports } from '../ports.ts';
import { sourceStamp } from '../replica/index.ts';
import { openDisk, openDiskForWriting, type VirtualDisk, type WritableDisk } from '../vhd/index.ts';
import { DirtyMap } from './dirty-map.ts';
import { DiskLogs, listLogs } from './disk-logs.ts';
import { ItemTracker } from './item-tracker.ts';
import { TrackedDisk } from './tracked-disk.ts';
import { type ItemDisk, mapIdentity, type TrackedItem, type TrackedSource } from './tracked-item.ts';
import {
  type DiskTracking,
  loadTrackingState,
  mapPath,
  type ResyncReason,
  saveTrackingState,
  type TrackingMode,
  type TrackingState,
} from './tracking-state.ts';

/** Bytes that are read and logged at a time. */
const BRIDGE_BYTES: number = 4 * MIB;

/** What was found of one disk before anything is opened for writing. */
interface Found {
  readonly logs: DiskLogs;
  readonly map: DirtyMap;
  readonly trouble: Omit<ResyncReason, 'sinceMs'> | undefined;
}

/** SHA-256, in hexadecimal, over what the files of a disk say of themselves: changes when somebody edits it. */
export async function diskStamp(
  { path, format }: Pick<TrackedSource, 'path' | 'format'>,
  ports: Pick<Ports, 'files'>,
): Promise<string> {
  const disk = await openDisk(path, { ports, format });
  try {
    return await stampOf(disk);
  } finally {
    await disk.close();
  }
}

async function stampOf(disk: VirtualDisk): Promise<string> {
  return Buffer.from(await sourceStamp([disk])).toString('hex');
}

/**
 * Opens the tracking of an item and makes it whole; from then on its devices may be served.
 * @param confirm called once nobody else can change what is tracked; throws where these are not the disks any more
 * @throws ITEM_LOCKED if it is tracked already; what opening the disks throws; LOCAL_STATE
 */
export async function openTracker(
  item: TrackedItem,
  confirm: () => Promise<void> = async () => {},
): Promise<ItemTracker> {
  const { directory, ports } = item;
  await ports.files.makeDirectory(directory);
  const lock = await ports.lock(directory, `tracking of item "${item.name}"`);
  const opened: { close(): Promise<void> }[] = [];
  try {
    await confirm();
    return await recover(item, lock, opened);
  } catch (error) {
    for (const each of opened.reverse()) await each.close().catch(() => {});
    await lock.release();
    throw error;
  }
}

async function recover(
  item: TrackedItem,
  lock: Awaited<ReturnType<Ports['lock']>>,
  opened: { close(): Promise<void> }[],
): Promise<ItemTracker> {
  const { directory, ports } = item;
  const state = (await loadTrackingState(directory, ports.files)) ?? neverSynced(item);
  const found: Found[] = [];
  for (const [i, source] of item.disks.entries()) {
    const one = await inspect(item, state, source, state.disks[i]!);
    opened.push({ close: () => one.map.abandon() });
    found.push(one);
  }
  const trouble = found.find((one) => one.trouble)?.trouble;
  const reason = trouble ? { ...trouble, sinceMs: ports.clock.nowMs() } : state.reason;
  const mode: TrackingMode = trouble ? 'resync-required' : state.mode;
  const nextIds = state.disks.map(({ nextContentId }) => nextContentId ?? randomGuid(ports.random.bytes(16)));
  const stopped = state.stopped ?? false;
  if (!trouble) await saveTrackingState(directory, startingState(state, nextIds), ports.files);
  let tracker: ItemTracker | undefined;
  const disks: ItemDisk[] = [];
  for (const [i, source] of item.disks.entries()) {
    const { map, logs } = found[i]!;
    const disk = await openDiskForWriting(source.path, { ports, format: source.format });
    opened.push(disk);
    await disk.renewContentId(nextIds[i]!);
    const device = new TrackedDisk({
      name: source.id,
      disk,
      map,
      isStopped: stopped,
      onLogFailure: (cause) => tracker?.noteFailure(disks[i]!, cause),
      onMapFailure: async (failed, cause) => tracker?.noteMapFailure(disks[i]!, failed, cause),
      assertKnown: () => tracker?.assertKnown(),
      onLogGrowth: () => tracker?.noteGrowth(disks[i]!),
    });
    disks.push({ source, device, logs });
  }
  const removable = mode === 'resync-required' ? state.disks.flatMap(({ logs }) => logs.map(({ path }) => path)) : [];
  if (mode === 'resync-required') for (const { logs } of disks) logs.restart(logs.head);
  if (mode !== 'resync-required') await startLogs(disks, opened);
  await saveTrackingState(directory, runningState(mode, reason, disks), ports.files);
  for (const path of [...removable, ...(await strayLogs(disks, ports))]) await ports.files.remove(path);
  if (!state.clean) await bridgeAll(item, disks, mode);
  tracker = new ItemTracker({ directory, disks, mode, reason, stopped, lock, ports, onEvent: item.onEvent });
  if (reason && mode === 'resync-required') {
    item.onEvent({ code: 'RESYNC_REQUIRED', message: `resync required: ${reason.message}` });
  }
  for (const disk of disks) tracker.noteGrowth(disk);
  return tracker;
}

/** The state of an item whose first replication never ended, or of which nothing is remembered. */
function neverSynced({ disks, ports }: TrackedItem): TrackingState {
  const reason = { code: 'NOT_SYNCED', message: 'no replication of these disks has ended', sinceMs: 0 } as const;
  const head = (): string => randomGuid(ports.random.bytes(16));
  return {
    mode: 'resync-required',
    reason: { ...reason, sinceMs: ports.clock.nowMs() },
    tracked: false,
    clean: true,
    disks: disks.map(() => ({ head: head(), logs: [], contentId: '', stamp: '' })),
  };
}

/** Looks at a disk, its map and its logs; closes logs that a crash left open. */
async function inspect(
  item: TrackedItem,
  state: TrackingState,
  source: TrackedSource,
  tracking: DiskTracking,
): Promise<Found> {
  const { ports } = item;
  const logs = new DiskLogs(source.path, tracking.head, ports);
  const edit = await offlineEdit(source, state, tracking, ports);
  const neverSynced = state.reason?.code === 'NOT_SYNCED';
  const known = await openMap(item, source);
  const noMap = { code: 'MAP_LOST', message: `the dirty map of ${source.path} is missing or damaged` } as const;
  const map = known ?? (await replaceMap(item, source, state, noMap));
  if (edit || neverSynced) await map.markAll();
  const lost = state.mode === 'resync-required' ? undefined : await adoptLogs(logs, tracking, ports);
  return { logs, map, trouble: edit ?? (known || neverSynced ? undefined : noMap) ?? lost };
}

/** What is known of an edit by somebody else since tracking ended; undefined if there was none, as far as can be told. */
export async function offlineEdit(
  source: TrackedSource,
  { clean }: TrackingState,
  { stamp, contentId, nextContentId }: DiskTracking,
  ports: Ports,
): Promise<Found['trouble']> {
  const disk = await openDisk(source.path, { ports, format: source.format });
  try {
    // After a crash only a VHDX tells who wrote it last.
    const isOurs = contentId === '' || disk.contentId === contentId || disk.contentId === nextContentId;
    const isSame = clean && stamp !== '' ? (await stampOf(disk)) === stamp : isOurs;
    if (isSame) return undefined;
    return { code: 'EDITED_OFFLINE', message: `${source.path} was changed while nobody tracked it` };
  } finally {
    await disk.close();
  }
}

/** undefined if there is none that can be believed. */
async function openMap({ directory, ports }: TrackedItem, source: TrackedSource): Promise<DirtyMap | undefined> {
  const path = mapPath(directory, source.id);
  if (!(await ports.files.exists(path))) return undefined;
  try {
    return await DirtyMap.open(path, { ...mapIdentity(source), ports });
  } catch (error) {
    if (isBlockferryError(error, 'LOCAL_STATE')) return undefined;
    throw error;
  }
}

/** Makes a map that has every chunk, behind the mark: it knows of no chunk that was active, so logs cannot be bridged. */
async function replaceMap(
  { directory, ports }: TrackedItem,
  source: TrackedSource,
  state: TrackingState,
  trouble: Omit<ResyncReason, 'sinceMs'>,
): Promise<DirtyMap> {
  const reason = { ...trouble, sinceMs: ports.clock.nowMs() };
  if (state.mode !== 'resync-required') {
    await saveTrackingState(directory, { ...state, mode: 'resync-required', reason }, ports.files);
  }
  return DirtyMap.create(mapPath(directory, source.id), { ...mapIdentity(source), ports, everything: true });
}

/** Takes over the logs that the state names; those that a crash left open are closed at the end of their valid prefix. */
async function adoptLogs(logs: DiskLogs, tracking: DiskTracking, ports: Ports): Promise<Found['trouble']> {
  for (const { path, uniqueId } of tracking.logs) {
    try {
      await sealLog(path, { ports });
      const log = await ChangeLog.open(path, { ports });
      try {
        const { allocatedBytes } = await log.file.stamp();
        const isOurs = log.header.uniqueId === uniqueId && log.header.previousUniqueId === logs.tail;
        if (!isOurs) return { code: 'LOG_LOST', message: `${path} is another log than the one that was written` };
        logs.addClosed({ path, uniqueId, storedBytes: allocatedBytes });
      } finally {
        await log.close();
      }
    } catch (error) {
      if (!isBlockferryError(error)) throw error;
      return { code: 'LOG_LOST', message: error.message };
    }
  }
  return undefined;
}

async function startLogs(disks: readonly ItemDisk[], opened: { close(): Promise<void> }[]): Promise<void> {
  for (const { logs, device } of disks) {
    const log = await logs.create(device.dataWriteGuid);
    opened.push({ close: () => log.abandon() });
    logs.exchange(log);
    device.useLog(log);
  }
}

/**
 * Before the start changes a disk: if it ends in between, the next one finds no stranger's edit. Who finds trouble leaves
 * the state as it is, so the next start finds it too.
 */
function startingState(state: TrackingState, nextIds: readonly string[]): TrackingState {
  const disks = state.disks.map((disk, i) => ({ ...disk, nextContentId: nextIds[i]! }));
  return { ...state, clean: false, disks };
}

function runningState(mode: TrackingMode, reason: ResyncReason | undefined, disks: readonly ItemDisk[]): TrackingState {
  return {
    mode,
    ...(reason ? { reason } : {}),
    ...(disks.some(({ device }) => device.isStopped) ? { stopped: true } : {}),
    tracked: true,
    clean: false,
    disks: disks.map(({ logs, device }) => ({
      ...{ head: logs.head, logs: logs.named, contentId: device.disk.contentId, stamp: '' },
    })),
  };
}

/** Logs that a crash left between their creation and their being named: they hold nothing. */
async function strayLogs(disks: readonly ItemDisk[], ports: Ports): Promise<readonly string[]> {
  const stray: string[] = [];
  for (const { source, logs } of disks) {
    const named = new Set(logs.named.map(({ path }) => path));
    for (const { path } of await listLogs(source.path, ports.files)) {
      if (!named.has(path) && (await isEmptyOpenLog(path, ports))) stray.push(path);
    }
  }
  return stray;
}

async function isEmptyOpenLog(path: string, ports: Ports): Promise<boolean> {
  let log: ChangeLog;
  try {
    log = await ChangeLog.open(path, { ports });
  } catch {
    return false;
  }
  try {
    if (log.isClosed) return false;
    for await (const { entries } of log.blocks()) if (entries.length > 0) return false;
    return true;
  } finally {
    await log.close();
  }
}

/** After a crash: log and disk agree again from the end of the bridge on. Without logs the maps alone take over. */
async function bridgeAll(item: TrackedItem, disks: readonly ItemDisk[], mode: TrackingMode): Promise<void> {
  for (const { device, source } of disks) {
    const { disk, map, log } = device;
    const bridgedBytes = mode === 'resync-required' || !log ? 0 : await bridge(disk, map, log);
    map.adoptActive();
    if (bridgedBytes === 0) continue;
    const message = `${source.id}: the last run ended without warning; ${bridgedBytes} bytes were read and logged again`;
    item.onEvent({ code: 'BRIDGED', message });
  }
}

async function bridge(disk: WritableDisk, map: DirtyMap, log: LogWriter): Promise<number> {
  const sizeBytes = disk.info.virtualSizeBytes;
  const buffer = Buffer.allocUnsafe(BRIDGE_BYTES);
  let bridgedBytes = 0;
  for (const { from, to } of map.runs('active')) {
    const end = Math.min(to * map.chunkBytes, sizeBytes);
    for (let at = from * map.chunkBytes; at < end; ) {
      const bytes = buffer.subarray(0, Math.min(BRIDGE_BYTES, end - at));
      await disk.read(bytes, at);
      await log.append([{ byteOffset: at, bytes }]);
      at += bytes.byteLength;
      bridgedBytes += bytes.byteLength;
    }
  }
  await log.sync();
  return bridgedBytes;
}

/** The hash that names a begun resync: of the heads that its logs follow. */
export function resyncEpoch(heads: readonly string[]): Uint8Array {
  return createHash('sha256').update(heads.join('\n')).digest();
}
