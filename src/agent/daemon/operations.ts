/**
 * What the engine can do with a machine of this home: the item-level operations with the machine's configuration, its share of
 * the line, and every failure as a BlockferryError.
 */
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BlockferryError, isBlockferryError } from '../../errors.ts';
import { apply } from '../apply.ts';
import { gatherFacts } from '../facts.ts';
import { newestPointMs } from '../further-stores.ts';
import type { ItemFacts } from '../life/index.ts';
import { type ItemState, LocalItem } from '../local-state.ts';
import { mirror } from '../mirror.ts';
import { publicUrl, withLock } from '../open-item.ts';
import { protect } from '../protect.ts';
import { prune } from '../prune.ts';
import { resync } from '../resync.ts';
import { ship } from '../ship.ts';
import { shipTogether } from '../ship-together.ts';
import { retentionFacts, retentionFault } from '../sides/index.ts';
import type { ProtectRequest, Session, ShipRequest } from '../types.ts';
import { limitsOf } from './operation-context.ts';
import type {
  AgentProcesses,
  AppConsistency,
  FollowOperations,
  GroupConfig,
  GroupOperations,
  MachineConfig,
  MachineOperations,
  OperationContext,
} from './types.ts';

/** What all machines of an agent share. */
export type SessionBase = Pick<Session, 'ports' | 'home' | 'environment' | 'workers' | 'onEvent'>;

export function machineOperations(
  base: SessionBase,
  config: MachineConfig,
  processes: AgentProcesses | undefined,
): MachineOperations {
  const { name } = config;
  const session = (context: OperationContext): Session => sessionOf(base, context);
  return {
    observe: (context) => observe(session(context), config),
    protect: (context) => protect(session(context), protectRequest(config)),
    ship: (context) => ship(session(context), name, shipRequest(config.appConsistent, context.consistency, processes)),
    apply: (context) => apply(session(context), { name }),
    resync: (context) => resync(session(context), name),
    prune: async (context) => {
      const { dropped } = await prune(session(context), name, { policy: context.policy });
      return { dropped: dropped.length };
    },
    ...(config.failback?.retention === undefined
      ? {}
      : { retention: retentionOf(base, config, config.failback.retention) }),
    space: () => fullestVolume(base, config),
  };
}

/** Carrying a machine from one of its stores to the next. */
export function followOperations(base: SessionBase, config: MachineConfig, from: string, to: string): FollowOperations {
  const { name, retention, apply: folding } = config;
  const request = { from, to, retention, applyFrom: folding.logs };
  return {
    look: (context) => newestPointMs(sessionOf(base, context), name, to),
    mirror: async (context) => {
      const session = sessionOf(base, context);
      await rememberStores(session, config);
      const [report] = await mirror(session, { name }, request);
      return report!;
    },
  };
}

/**
 * So that commands of this home know the stores as well. While somebody works on the item it waits for the next time; a side that took
 * over in another store than the configuration says follows nothing of it.
 */
async function rememberStores(session: Session, { name, url: first, also = [] }: MachineConfig): Promise<void> {
  const item = new LocalItem(session.home, name, session.ports.files);
  const isSame = ({ url, also: known = [] }: ItemState): boolean =>
    publicUrl(url) !== publicUrl(first) || JSON.stringify(known) === JSON.stringify(also);
  if (isSame(await item.load())) return;
  try {
    await withLock(session, item, async () => {
      const state = await item.load();
      if (!isSame(state)) await item.save({ ...state, also });
    });
  } catch (error) {
    if (!isBlockferryError(error, 'ITEM_LOCKED')) throw error;
  }
}

export function groupOperations(
  base: SessionBase,
  { machines, appConsistent }: GroupConfig,
  processes: AgentProcesses | undefined,
): GroupOperations {
  return {
    ship: (context) =>
      shipTogether(sessionOf(base, context), machines, shipRequest(appConsistent, context.consistency, processes)),
  };
}

/** The limits of a session follow the share as long as the operation runs. */
export function sessionOf(base: SessionBase, context: OperationContext): Session {
  return { ...base, signal: context.signal, limits: limitsOf(context, base.ports.clock) };
}

/** @throws CONFIG_INVALID if the item is another one than the configuration describes */
async function observe(session: Session, config: MachineConfig): Promise<ItemFacts> {
  const item = new LocalItem(session.home, config.name, session.ports.files);
  try {
    const state = await item.find();
    if (state) checkSame(config, state);
    return await gatherFacts(session, config.name);
  } catch (error) {
    if (!isBlockferryError(error, 'ITEM_NOT_FOUND')) throw error;
    return { nowMs: session.ports.clock.nowMs(), item: config.name };
  }
}

function checkSame(
  { name, disks, url }: MachineConfig,
  item: { readonly disks: readonly string[]; readonly url: string },
): void {
  const sameDisks = item.disks.length === disks.length && item.disks.every((disk, i) => disk === disks[i]);
  if (sameDisks && publicUrl(item.url) === publicUrl(url)) return;
  throw new BlockferryError(
    'CONFIG_INVALID',
    `item "${name}" is protected with other disks or to another store than configured`,
    {
      facts: { name },
      hint: `it has ${item.disks.join(', ')} to ${publicUrl(item.url)}; write that, or take another name for another replica`,
    },
  );
}

function protectRequest({
  name,
  disks,
  url,
  also,
  keys,
  layout,
  chunkBytes,
  compression,
}: MachineConfig): ProtectRequest {
  return {
    ...{ name, disks, url, keys },
    ...(also === undefined ? {} : { also }),
    ...(layout === undefined ? {} : { layout }),
    ...(chunkBytes === undefined ? {} : { chunkBytes }),
    ...(compression === undefined ? {} : { compression }),
  };
}

function shipRequest(
  appConsistent: AppConsistency | undefined,
  consistency: 'crash' | 'app',
  processes: AgentProcesses | undefined,
): ShipRequest {
  const { freeze, thaw, timeoutMs } = appConsistent ?? {};
  if (consistency === 'crash' || freeze === undefined || thaw === undefined || !processes) return { consistency };
  return {
    consistency,
    freeze: (signal) => processes.shell('freeze', freeze, signal),
    thaw: () => processes.shell('thaw', thaw),
    ...(timeoutMs === undefined ? {} : { freezeTimeoutMs: timeoutMs }),
  };
}

function retentionOf({ ports: { files }, home }: SessionBase, { disks }: MachineConfig, directory: string) {
  return async () => retentionFault(await retentionFacts(directory, { home, disks }, files))?.message;
}

/** Of the volumes that replication writes to: logs lie beside the disks, state in the home, a folder store on its own. */
async function fullestVolume(
  { ports: { files }, home }: SessionBase,
  { disks, url }: MachineConfig,
): Promise<{ readonly freeBytes: number; readonly totalBytes: number }> {
  const places = new Set([home, ...disks.map((disk) => dirname(disk))]);
  if (url.startsWith('file:')) places.add(fileURLToPath(url));
  const volumes: { readonly freeBytes: number; readonly totalBytes: number }[] = [];
  for (const place of places) {
    // A folder store is made by the first copy.
    if (!(await files.exists(place))) continue;
    volumes.push({ freeBytes: await files.freeBytes(place), totalBytes: await files.volumeBytes(place) });
  }
  volumes.sort((a, b) => a.freeBytes / a.totalBytes - b.freeBytes / b.totalBytes);
  const [fullest] = volumes;
  if (fullest) return fullest;
  throw new BlockferryError('LOCAL_STATE', `none of ${[...places].join(', ')} is there`);
}
