/**
 * ship, the verb: what the change logs of all disks leave, as one sealed object, and a root that names it with a recovery point.
 *
 * Before anything is uploaded every log is verified, and the chain of each disk must begin where the replica's head stands:
 * a log that is damaged, missing, older or of another disk costs nothing but an error. The root decides: an object that it
 * does not name means nothing, and is removed later (collect-logs.ts).
 */
import { BlockferryError, isBlockferryError } from '../errors.ts';
import { type ChangeLog, coalesceLogs, orderChain, verifyLog } from '../hrl/index.ts';
import type { Ports } from '../ports.ts';
import type { Lanes } from '../transport/index.ts';
import type { WorkerPool } from '../workers/index.ts';
import { collectAfterCommit } from './collect-dropped.ts';
import type { Committer, RootChange } from './committer.ts';
import { logKey } from './layout.ts';
import { assertReplicating } from './owner.ts';
import { newestLog, type RecoveryPoint, type Root, type ShippedLog } from './root.ts';
import { planFrames } from './shipped-log-plan.ts';
import { writeShippedLog } from './shipped-log-writer.ts';

const LOG_ID_BYTES = 16;

export interface ShipSetup {
  readonly committer: Committer;
  /** Whose logs these are. */
  readonly side: Uint8Array;
  readonly pool: WorkerPool;
  readonly lanes: Lanes;
  /** Closed logs of each disk, oldest first; none where nothing was written. Open until it is done. */
  readonly logs: readonly (readonly ChangeLog[])[];
  /** UniqueId of the last log of each disk; the replica's head where there is none. */
  readonly heads: readonly string[];
  /** Of the barrier behind which the logs end. */
  readonly timeMs: number;
  readonly consistency: RecoveryPoint['consistency'];
  /** Of the group that shares the barrier. */
  readonly group?: string;
  readonly ports: Pick<Ports, 'clock' | 'random' | 'failpoint'>;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: ShipProgress) => void;
}

export interface ShipProgress {
  /** Id of the disk that is at work. */
  readonly disk: string;
  /** Of the logged bytes, those that are shipped, or were written over by a later write. */
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly transferredBytes: number;
}

export interface ShipResult {
  readonly point: RecoveryPoint;
  readonly root: Root;
  /** Of the object. */
  readonly sentBytes: number;
  /** Guest bytes in it, each once, without zeros. */
  readonly dataBytes: number;
  /** Absent if the logs held no write. */
  readonly log?: ShippedLog;
}

/**
 * Ships the logs and commits a recovery point, also if they hold nothing.
 * @throws HRL_HEADER and its kin, naming the place; REPLICA_OTHER_SIDE, RESYNC_REQUIRED, REPLICA_FULL, REPLICA_FENCED, and what the store throws
 */
export async function shipLogs(setup: ShipSetup): Promise<ShipResult> {
  const { committer, ports, signal } = setup;
  const before = committer.root;
  assertReplicating(before, setup.side);
  refuseUnfinished(before);
  const chains = orderChains(setup, before);
  const loggedBytes = await verifyLogs(setup, chains);
  const seq = newestLog(before) + 1;
  const log = await writeLog(setup, chains, seq, loggedBytes);
  await ports.failpoint('ship.after-upload');
  let replaced = before;
  const change = (latest: Root): RootChange => {
    assertReplicating(latest, setup.side);
    refuseUnfinished(latest);
    replaced = latest;
    const goesOn = before.disks.every(({ head }, i) => head === latest.disks[i]!.head);
    if (newestLog(latest) + 1 !== seq || !goesOn) throw overtaken(seq);
    const point: RecoveryPoint = {
      id: `p${latest.generation + 1}`,
      timeMs: setup.timeMs,
      consistency: setup.consistency,
      generation: latest.generation + 1,
      baseline: latest.baselines.at(-1)!.generation,
      log: log?.seq ?? seq - 1,
      ...(setup.group === undefined ? {} : { group: setup.group }),
    };
    return {
      disks: latest.disks.map((disk, i) => ({ ...disk, head: setup.heads[i]! })),
      points: [...latest.points, point],
      ...(log ? { logs: [...latest.logs, log] } : {}),
    };
  };
  const beforeRetry = (): Promise<void> => assertStored(setup, log);
  const root = await committer.commitOver(change, signal, { early: true, beforeRetry });
  // A new point may push an old one out.
  await collectAfterCommit({ replica: committer.replica, clock: ports.clock, signal }, replaced, root);
  const counts = { sentBytes: log?.sizeBytes ?? 0, dataBytes: log?.dataBytes ?? 0 };
  return { point: root.points.at(-1)!, root, ...counts, ...(log ? { log } : {}) };
}

/** Who passes objects on may have refused this one together with the root that did not fit: no root names what is not there. */
async function assertStored({ committer, signal }: ShipSetup, log: ShippedLog | undefined): Promise<void> {
  if (log === undefined) return;
  try {
    await committer.replica.store.read(logKey(log), 0, 1, { signal });
  } catch (cause) {
    if (!isBlockferryError(cause, 'STORE_NOT_FOUND')) throw cause;
    throw new BlockferryError('STORE_CONDITION', `log ${log.seq} is not there any more`, {
      cause,
      facts: { log: log.seq, rule: 'a root names logs that are there' },
      retryable: true,
      hint: 'ship again: the change logs are still beside the disks',
    });
  }
}

/** An unfinished copy leaves nothing that a log could be played over; an unfinished apply harms no log. */
function refuseUnfinished({ sync, baselines }: Root): void {
  if (baselines.length > 0 && (sync === undefined || sync.kind === 'apply')) return;
  throw new BlockferryError(
    'RESYNC_REQUIRED',
    'a copy of the disks has not ended: there is nothing that logs go on from',
    {
      facts: { rule: 'logs are shipped onto a baseline' },
      hint: 'run protect or resync again, which finishes the copy',
    },
  );
}

/** The logs of each disk in their order, from the replica's head to the new one. @throws HRL_CHAIN, HRL_TORN */
function orderChains({ logs, heads }: ShipSetup, { disks }: Root): readonly (readonly ChangeLog[])[] {
  if (logs.length !== disks.length || heads.length !== disks.length) {
    throw new RangeError(`${logs.length} disks with ${heads.length} heads were given, the replica has ${disks.length}`);
  }
  return disks.map(({ head }, i) => {
    const chain = orderChain(logs[i]!, head);
    const open = chain.find(({ isClosed }) => !isClosed);
    if (open) refuse('HRL_TORN', open.path, 44, 'a log is closed before it is shipped', {});
    const last = chain.at(-1);
    const found = last?.header.uniqueId ?? head;
    if (found === heads[i]) return chain;
    const rule = 'the new head is the UniqueId of the last log, or stays where there is none';
    return refuse('HRL_CHAIN', last?.path ?? `disk ${i}`, 60, rule, { head: heads[i]!, uniqueId: found });
  });
}

function refuse(
  code: 'HRL_CHAIN' | 'HRL_TORN',
  source: string,
  offset: number,
  rule: string,
  facts: Readonly<Record<string, string>>,
): never {
  const numbers = Object.entries(facts).map(([name, value]) => `${name} ${value}`);
  const text = numbers.length === 0 ? '' : ` (${numbers.join(', ')})`;
  throw new BlockferryError(code, `${source}: offset ${offset}: broken rule: ${rule}${text}`, {
    facts: { source, offset, rule, ...facts },
  });
}

/** Verifies all logs against the disks; returns the bytes of all writes in them. */
async function verifyLogs(
  { committer, signal }: ShipSetup,
  chains: readonly (readonly ChangeLog[])[],
): Promise<number> {
  const { disks } = committer.replica.description;
  let loggedBytes = 0;
  for (const [i, chain] of chains.entries()) {
    for (const log of chain) loggedBytes += (await verifyLog(log, { signal, disk: disks[i]! })).dataBytes;
  }
  return loggedBytes;
}

async function writeLog(
  setup: ShipSetup,
  chains: readonly (readonly ChangeLog[])[],
  seq: number,
  totalBytes: number,
): Promise<ShippedLog | undefined> {
  const { committer, pool, lanes, ports, signal, onProgress } = setup;
  const { store, description } = committer.replica;
  let doneBytes = 0;
  const log = await writeShippedLog({
    ...{ store, pool, lanes, ports, signal },
    log: { seq, id: ports.random.bytes(LOG_ID_BYTES) },
    frames: planFrames(chains.map((chain) => coalesceLogs(chain, { signal }))),
    onFrame: ({ disk, coveredBytes }, transferredBytes) => {
      doneBytes += coveredBytes;
      onProgress?.({ disk: description.disks[disk]!.id, doneBytes, totalBytes, transferredBytes });
    },
  });
  const disk = description.disks.at(-1)!.id;
  onProgress?.({ disk, doneBytes: totalBytes, totalBytes, transferredBytes: log?.sizeBytes ?? 0 });
  return log;
}

function overtaken(seq: number): BlockferryError {
  return new BlockferryError('REPLICA_FENCED', `another log ${seq} was shipped meanwhile`, {
    facts: { log: seq },
    hint: 'see that one process only ships this item, then run the command again',
  });
}
