/**
 * failover: the disks of a recovery point, beside whatever the owner does. The replica is only read, so it works on the worst
 * day and disturbs nobody; what it means for the owner is decided by `commit` or `cancel`.
 */
import { resolve } from 'node:path';
import { BlockferryError } from '../../errors.ts';
import { isOwner, type RecoveryPoint, type Replica, SIDE_BYTES } from '../../replica/index.ts';
import { diskStamp } from '../../tracker/index.ts';
import type { DiskFormat } from '../../vhd/index.ts';
import { LocalItem } from '../local-state.ts';
import { withReplica } from '../open-item.ts';
import type { FailoverReport, FailoverRequest, KeySource, ReplicaReference, Session } from '../types.ts';
import { bringBack, choosePoint } from './bring-back.ts';
import { type BroughtDisk, type FailoverRecord, loadFailover, loadTests, saveFailover, saveTests } from './record.ts';

/** Brings the disks of a recovery point back, for a test or to take over. */
export function failover(
  session: Session,
  reference: ReplicaReference,
  request: FailoverRequest,
): Promise<FailoverReport> {
  return withReplica(session, reference, async (replica) => {
    const { name } = reference;
    const item = new LocalItem(session.home, name, session.ports.files);
    const point = request.planned ? stoppedAt(replica) : choosePoint(replica, request.point);
    if (!request.test) await refuseOther(session, item);
    const outDirectory = resolve(request.outDirectory);
    const report = await bringBack(session, replica, point, { ...request, outDirectory });
    const { files, clock } = session.ports;
    if (request.test) {
      const test = { pointId: point.id, paths: report.disks.map(({ path }) => path), sinceMs: clock.nowMs() };
      await saveTests(item, [...(await loadTests(item, files)), test], files);
      return report;
    }
    const disks = report.disks.map(({ path }) => ({ path, format: request.format ?? 'vhdx' }) as const);
    const planned = request.planned ?? false;
    await remember(session, item, replica, { kind: 'failover', planned, point, disks, reference });
    return report;
  });
}

/** The point at which the owner has stopped. @throws USAGE while it goes on */
function stoppedAt(replica: Replica): RecoveryPoint {
  const { owner, points } = replica.record.root;
  const point = points.find(({ id }) => id === owner.point);
  if (owner.phase === 'synced' && point) return point;
  throw new BlockferryError('USAGE', `the owner of "${replica.description.item}" has not stopped`, {
    facts: { item: replica.description.item, phase: owner.phase },
    hint: 'run blockferry failover --planned in its home first; if it is lost, leave --planned out',
  });
}

/** A failback may have laid its disks already: it ends by commit or cancel. */
async function refuseOther(session: Session, item: LocalItem): Promise<void> {
  if ((await loadFailover(item, session.ports.files))?.kind !== 'failback') return;
  throw new BlockferryError('USAGE', `a failback of item "${item.name}" waits for commit or cancel`, {
    facts: { item: item.name },
    hint: `end it with: blockferry commit ${item.name}, or blockferry cancel ${item.name}`,
  });
}

export interface Remembered {
  readonly kind: FailoverRecord['kind'];
  readonly planned: boolean;
  readonly inPlace?: boolean;
  readonly point: RecoveryPoint;
  readonly disks: readonly { readonly path: string; readonly format: DiskFormat }[];
  readonly reference: ReplicaReference;
}

/** Notes disks that are complete; from here on they wait for commit or cancel. */
export async function remember(
  session: Session,
  item: LocalItem,
  replica: Replica,
  { kind, planned, inPlace = false, point, disks, reference }: Remembered,
): Promise<FailoverRecord> {
  const { ports } = session;
  const { root } = replica.record;
  const brought: BroughtDisk[] = [];
  for (const { path, format } of disks) {
    brought.push({ path, format, stamp: await diskStamp({ path, format }, ports) });
  }
  const state = 'url' in reference ? undefined : await item.load();
  const record: FailoverRecord = {
    ...{ kind, planned, inPlace, disks: brought },
    fromOurs: state !== undefined && isOwner(root, state.side),
    url: 'url' in reference ? reference.url : state!.url,
    keys: 'url' in reference ? reference.keys.map(absolute) : [],
    point: { id: point.id, timeMs: point.timeMs },
    epoch: root.owner.epoch,
    newestGeneration: root.points.at(-1)!.generation,
    side: ports.random.bytes(SIDE_BYTES),
    sinceMs: ports.clock.nowMs(),
  };
  await saveFailover(item, record, ports.files);
  return record;
}

const absolute = ({ type, path }: KeySource): KeySource => ({ type, path: resolve(path) });
