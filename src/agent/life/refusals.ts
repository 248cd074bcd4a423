/**
 * Why a verb is refused in a state, and what to do instead. The types hold it together with the transitions: a verb that a state does
 * not have needs advice here, or this does not compile.
 */
import { BlockferryError, type ErrorCode } from '../../errors.ts';
import type { Verb } from './facts.ts';
import type { LifeState, LifeStateName } from './state.ts';
import { timeText } from './texts.ts';
import { type IllegalVerb, targetOf } from './transitions.ts';

/** What to do instead; NAME stands for the item. */
interface Advice {
  readonly instead: string;
  /** What others call it that find it later, in the replica or in the tracker; ILLEGAL_STATE for all else. */
  readonly code?: ErrorCode;
}

/** One piece of advice for several verbs. */
function advise<V extends Verb>(instead: string, verbs: readonly V[], code?: ErrorCode): Readonly<Record<V, Advice>> {
  const advice = { instead, ...(code === undefined ? {} : { code }) };
  return Object.fromEntries(verbs.map((verb) => [verb, advice])) as unknown as Readonly<Record<V, Advice>>;
}

const COPYING = ['protect', 'ship', 'resync'] as const;
const PROTECT_FIRST = 'protect it first: blockferry protect NAME DISK… --to URL';
const WAIT_FOR_FIRST_COPY = 'wait until the first copy has ended; blockferry protect NAME goes on with it';
const NOTHING_BROUGHT_BACK = 'nothing was brought back here: begin with blockferry failover NAME --out DIR';
const NOT_PAUSED = 'it is not paused; blockferry status NAME says what it waits for';
const DISKS_ARE_FOLLOWED =
  'nothing to bring home: the replica follows these disks. failback is for the side that gave them up';
const COMMIT_OR_CANCEL = 'end what waits first: blockferry commit NAME, or blockferry cancel NAME';
const RESUME_FIRST = 'let it go on first: blockferry agent resume NAME';
const RESYNC_FIRST = 'blockferry resync NAME; it reads only what may differ, while the guest writes on';
const WAIT_FOR_RESYNC = 'wait until the resync has ended; blockferry status NAME shows how far it is';
const COMMITTED =
  'there is no way back but replicating the other way: blockferry reverse NAME, and failback where the disks came from';
const REVERSE_FIRST = 'begin to replicate these disks first: blockferry reverse NAME';
const STOPPED = 'commit where the disks were brought back, or go on here: blockferry cancel NAME';
const OTHER_SIDE = 'bring these disks up to date: blockferry failback NAME, then blockferry commit NAME';
const THERE = 'run it where the disks were brought back';
const ENDED = 'to protect the disks again, choose another name and another URL';

const REFUSALS: { readonly [S in LifeStateName]: Readonly<Record<IllegalVerb<S>, Advice>> } = {
  'not-protected': {
    ...advise(PROTECT_FIRST, ['ship', 'apply', 'resync', 'pause', 'resume', 'cancel', 'end']),
    ...advise('name the replica by its URL: --from URL', ['failover', 'failover-test', 'failover-planned', 'failback']),
    ...advise(NOTHING_BROUGHT_BACK, ['commit', 'reverse']),
  },
  ready: {
    ...advise('blockferry protect NAME begins the first copy now', ['ship', 'apply', 'resync', 'cancel']),
    ...advise(WAIT_FOR_FIRST_COPY, ['failover', 'failover-test', 'failover-planned']),
    ...advise(NOTHING_BROUGHT_BACK, ['commit', 'reverse']),
    ...advise(DISKS_ARE_FOLLOWED, ['failback']),
  },
  'initial-replication': {
    ...advise(WAIT_FOR_FIRST_COPY, ['failover', 'failover-test', 'failover-planned', 'cancel']),
    ...advise(NOTHING_BROUGHT_BACK, ['commit', 'reverse']),
    ...advise(DISKS_ARE_FOLLOWED, ['failback']),
  },
  protected: {
    ...advise(NOTHING_BROUGHT_BACK, ['commit']),
    ...advise(NOT_PAUSED, ['resume']),
  },
  synced: {
    ...advise(STOPPED, COPYING, 'REPLICA_OTHER_SIDE'),
    ...advise(STOPPED, ['commit', 'reverse', 'end', 'pause']),
    ...advise(NOT_PAUSED, ['resume']),
  },
  'failover-waiting': advise(COMMIT_OR_CANCEL, ['protect', 'failback', 'reverse']),
  'failed-over': {
    ...advise(REVERSE_FIRST, COPYING, 'REPLICA_OTHER_SIDE'),
    ...advise(REVERSE_FIRST, ['failover', 'failover-planned', 'pause', 'resume']),
    ...advise(COMMITTED, ['commit', 'cancel']),
  },
  suspended: {
    ...advise(RESUME_FIRST, [...COPYING, 'failover-planned', 'pause']),
    ...advise(NOTHING_BROUGHT_BACK, ['commit', 'reverse']),
  },
  error: {
    ...advise(NOTHING_BROUGHT_BACK, ['commit']),
  },
  'resync-required': {
    ...advise(RESYNC_FIRST, ['ship'], 'RESYNC_REQUIRED'),
    ...advise(NOTHING_BROUGHT_BACK, ['commit']),
    ...advise(NOT_PAUSED, ['resume']),
  },
  resyncing: {
    ...advise(WAIT_FOR_RESYNC, ['ship'], 'RESYNC_REQUIRED'),
    ...advise(WAIT_FOR_RESYNC, ['protect', 'apply', 'resync', 'failover-planned', 'cancel', 'end']),
    ...advise(NOTHING_BROUGHT_BACK, ['commit', 'reverse']),
    ...advise(DISKS_ARE_FOLLOWED, ['failback']),
    ...advise(NOT_PAUSED, ['resume']),
  },
  'resync-suspended': {
    ...advise(RESUME_FIRST, [...COPYING, 'failover-planned', 'pause']),
    ...advise(NOTHING_BROUGHT_BACK, ['commit', 'reverse']),
  },
  'failback-waiting': {
    ...advise(COMMIT_OR_CANCEL, COPYING, 'REPLICA_OTHER_SIDE'),
    ...advise(COMMIT_OR_CANCEL, ['failover', 'failover-planned', 'reverse', 'pause', 'resume']),
  },
  'other-side': {
    ...advise(OTHER_SIDE, COPYING, 'REPLICA_OTHER_SIDE'),
    ...advise(OTHER_SIDE, ['commit', 'pause', 'resume']),
    ...advise(THERE, ['reverse', 'end']),
  },
  ended: {
    ...advise(ENDED, COPYING, 'REPLICA_OTHER_SIDE'),
    ...advise(ENDED, ['failover-planned', 'commit', 'cancel', 'failback', 'reverse', 'pause', 'resume']),
  },
  unknown: {},
};

/** What is asked for, in words. */
const ASKED: Readonly<Record<Verb, string>> = {
  protect: 'the disks cannot be copied',
  ship: 'nothing can be shipped',
  apply: 'nothing can be applied',
  resync: 'there is nothing to resync',
  failover: 'a failover is not possible',
  'failover-test': 'a test failover is not possible',
  'failover-planned': 'a planned failover is not possible',
  commit: 'nothing waits for commit',
  cancel: 'nothing can be cancelled',
  failback: 'a failback is not possible',
  reverse: 'replication cannot be reversed',
  end: 'protection cannot be ended',
  pause: 'replication cannot be paused',
  resume: 'replication cannot be resumed',
};

/** Why `verb` is not possible in `state`, with the next step; undefined if it is possible. */
export function refusal(state: LifeState, verb: Verb, item = 'NAME'): BlockferryError | undefined {
  if (targetOf(state.state, verb) !== undefined) return undefined;
  const row: Readonly<Partial<Record<Verb, Advice>>> = REFUSALS[state.state];
  const { instead, code = 'ILLEGAL_STATE' } = row[verb]!;
  return new BlockferryError(code, `${ASKED[verb]}: ${sentenceOf(state)}`, {
    facts: { state: state.state, verb },
    hint: instead.replaceAll('NAME', item),
  });
}

/** The state in a sentence, with its numbers. */
export function sentenceOf(state: LifeState): string {
  switch (state.state) {
    case 'not-protected':
      return 'the machine is not protected';
    case 'ready':
      return `its first copy begins at ${timeText(state.firstCopyAtMs)}`;
    case 'initial-replication':
      return 'its first copy has not ended';
    case 'protected':
      return 'it replicates';
    case 'synced':
      return `it was stopped at ${timeText(state.owner.sinceMs)} for a planned failover at point ${state.owner.point}`;
    case 'failover-waiting':
      return `a failover to point ${state.waiting.pointId} waits since ${timeText(state.waiting.sinceMs)}`;
    case 'failback-waiting':
      return `a failback to point ${state.waiting.pointId} waits since ${timeText(state.waiting.sinceMs)}`;
    case 'failed-over':
      return `it took over from point ${state.owner.point} at ${timeText(state.owner.sinceMs)} and does not replicate yet`;
    case 'suspended':
      return `it is paused since ${timeText(state.sinceMs)}`;
    case 'resync-suspended':
      return `it is paused since ${timeText(state.sinceMs)}, and a resync is required`;
    case 'error':
      return `it waits for a person: ${state.error.message}`;
    case 'resync-required':
      return `a resync is required: ${state.reason}`;
    case 'resyncing':
      return `a resync runs: ${state.reason}`;
    case 'other-side':
      return `the replica follows other disks than these, since epoch ${state.owner.epoch}`;
    case 'ended':
      return `protection was ended at ${timeText(state.owner.sinceMs)}`;
    case 'unknown':
      return `the replica could not be opened: ${state.error.message}`;
  }
}
