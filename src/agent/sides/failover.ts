/**
 * failover: the disks of a recovery point, beside whatever the owner does. The replica is only read, so it works on the worst
 * day and disturbs nobody; what it means for the owner is decided by `commit` or `cancel`.
 */
import { BlockferryError } from '../../errors.ts';
import type { RecoveryPoint, Replica } from '../../replica/index.ts';
import { LocalItem } from '../local-state.ts';
import { withReplica } from '../open-item.ts';
import { withReasons } from '../refuse.ts';
import type { FailoverReport, FailoverRequest, ReplicaReference, Session } from '../types.ts';
import { choosePoint } from './bring-back.ts';
import { withOutput } from './lock.ts';
import { bringForTest, failoverToWait } from './waiting.ts';

/** Brings the disks of a recovery point back, for a test or to take over. */
export function failover(
  session: Session,
  reference: ReplicaReference,
  request: FailoverRequest,
): Promise<FailoverReport> {
  const { planned, test } = request;
  const verb = planned ? 'failover-planned' : test ? 'failover-test' : 'failover';
  // Of a replica that is found by its URL, the state of an item of this home says nothing.
  if ('url' in reference) return bring(session, reference, request);
  return withReasons(session, reference.name, verb, () => bring(session, reference, request));
}

function bring(session: Session, reference: ReplicaReference, request: FailoverRequest): Promise<FailoverReport> {
  return withReplica(session, reference, async (replica) => {
    const item = new LocalItem(session.home, reference.name, session.ports.files);
    const planned = request.planned ?? false;
    const point = planned ? stoppedAt(replica) : choosePoint(replica, request.point);
    const where = { outDirectory: request.outDirectory, format: request.format ?? 'vhdx' } as const;
    return withOutput(session, where.outDirectory, () =>
      request.test
        ? bringForTest(session, item, replica, point, where)
        : failoverToWait(session, item, replica, { kind: 'failover', planned, point, reference }, where),
    );
  });
}

/** The point at which the owner has stopped. @throws ILLEGAL_STATE while it goes on */
function stoppedAt(replica: Replica): RecoveryPoint {
  const { owner, points } = replica.record.root;
  const point = points.find(({ id }) => id === owner.point);
  if (owner.phase === 'synced' && point) return point;
  throw new BlockferryError('ILLEGAL_STATE', `the owner of "${replica.description.item}" has not stopped`, {
    facts: { item: replica.description.item, phase: owner.phase },
    hint: 'run blockferry failover --planned in its home first; if it is lost, leave --planned out',
  });
}
