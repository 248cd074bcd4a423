/**
 * The chain of logs: each names the one before it. PreviousUniqueId and Vhd2DataWriteGuid are the only guards against
 * a log that was left out, is played twice or belongs to another disk, so both are looked at before anything is played.
 */
import { NIL_GUID } from '../guid.ts';
import { type LogFault, logError } from './fault.ts';
import type { LogHeader } from './log-header.ts';

const UNIQUE_ID_OFFSET = 60;
const PREVIOUS_ID_OFFSET = 76;

/** What tells a log's place in its chain; a ChangeLog has it. */
export interface ChainMember {
  readonly path: string;
  readonly header: Pick<LogHeader, 'uniqueId' | 'previousUniqueId'>;
  readonly isClosed: boolean;
}

/**
 * The logs in the order in which they were written, each following the one before.
 * @param after UniqueId of the log that was played last; the first of these must follow it
 * @throws HRL_CHAIN if one is missing, doubled or foreign; HRL_TORN if one that others follow was not closed
 */
export function orderChain<Member extends ChainMember>(logs: readonly Member[], after?: string): Member[] {
  const byPrevious = new Map<string, Member>();
  const known = new Map<string, Member>();
  for (const log of logs) {
    const { uniqueId } = log.header;
    if (uniqueId === after) refuse(log, UNIQUE_ID_OFFSET, 'a log is played once', { uniqueId });
    const twin = known.get(uniqueId);
    if (twin) refuse(log, UNIQUE_ID_OFFSET, 'a log is there once', { uniqueId, alsoIn: twin.path });
    known.set(uniqueId, log);
  }
  const first: Member[] = [];
  for (const log of logs) {
    const { previousUniqueId } = log.header;
    const rival = byPrevious.get(previousUniqueId);
    if (rival && previousUniqueId !== NIL_GUID) {
      refuse(log, PREVIOUS_ID_OFFSET, 'one log follows another', { previousUniqueId, alsoFollowedBy: rival.path });
    }
    byPrevious.set(previousUniqueId, log);
    if (!known.has(previousUniqueId)) first.push(log);
  }
  const follows = ({ header }: Member): boolean => header.previousUniqueId === (after ?? NIL_GUID);
  const stray = after === undefined && first.length === 1 ? undefined : first.find((log) => !follows(log));
  const second = stray ?? first[1];
  if (second) {
    const rule = 'the log before is there: none is missing, and all are of one disk';
    refuse(second, PREVIOUS_ID_OFFSET, rule, { previousUniqueId: second.header.previousUniqueId });
  }
  return walk(logs, first[0], byPrevious);
}

/**
 * Whether the disk was changed while nobody logged it: `unknown` for a disk or log that has no DataWriteGuid.
 * @param contentId of the open VHDX
 */
export function offlineEdit(
  { dataWriteGuid }: Pick<LogHeader, 'dataWriteGuid'>,
  contentId: string,
): 'none' | 'edited' | 'unknown' {
  if (dataWriteGuid === undefined || dataWriteGuid === NIL_GUID || contentId === '') return 'unknown';
  return dataWriteGuid === contentId ? 'none' : 'edited';
}

function walk<Member extends ChainMember>(
  logs: readonly Member[],
  first: Member | undefined,
  byPrevious: ReadonlyMap<string, Member>,
): Member[] {
  const order: Member[] = [];
  for (let log = first; log !== undefined; log = byPrevious.get(log.header.uniqueId)) {
    const before = order.at(-1);
    if (before?.isClosed === false) {
      const facts = { followedBy: log.path };
      throw logError(before.path, { code: 'HRL_TORN', offset: 44, rule: 'a log that others follow was closed', facts });
    }
    order.push(log);
  }
  // Ids are unique and each has one follower: what the walk from the first does not reach runs in circles.
  const astray = logs.find((log) => !order.includes(log));
  if (astray)
    refuse(astray, PREVIOUS_ID_OFFSET, 'no log comes before itself', {
      previousUniqueId: astray.header.previousUniqueId,
    });
  return order;
}

function refuse(log: ChainMember, offset: number, rule: string, facts: LogFault['facts']): never {
  const hint = 'name every log of the chain once, and none of another disk';
  throw logError(log.path, { code: 'HRL_CHAIN', offset, rule, facts }, hint);
}
