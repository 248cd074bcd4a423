/** The states of a machine, every transition against what the facts say behind it, every verb in every state. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type ItemFacts,
  LIFE_STATES,
  type LifeState,
  type LifeStateName,
  OCCURRENCES,
  publishedOf,
  refusal,
  stateOf,
  type Trigger,
  targetOf,
  transition,
  VERBS,
} from '../../../src/agent/life/index.ts';
import { EFFECTS, HEALTHY, MACHINES, marked, NOW_MS, OVERLAID, withOwner, withReplica } from './machines.ts';

const STATES = Object.keys(LIFE_STATES) as LifeStateName[];
const TRIGGERS = [...VERBS, ...Object.keys(OCCURRENCES)] as Trigger[];
const EVERY: readonly (readonly [LifeStateName, ItemFacts])[] = [
  ...STATES.map((state) => [state, MACHINES[state]] as const),
  ...OVERLAID,
];

describe('a state', () => {
  it.each(EVERY.map(([state, facts], i) => [state, i, facts] as const))(
    '%s follows from its facts (%i)',
    (state, _, facts) => {
      expect(stateOf(facts).state).toBe(state);
    },
  );

  it('has the number and name that are published, all twelve', () => {
    const numbers = STATES.flatMap((state) => publishedOf(state)?.code ?? []);
    expect([...new Set(numbers)].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(publishedOf('protected')).toEqual({ code: 3, name: 'Replicating' });
    expect(publishedOf('resync-required')).toEqual({ code: 9, name: 'WaitingForStartResynchronize' });
    expect(publishedOf('unknown')).toBeUndefined();
  });

  it('of a replica that nobody has seen is that of a first copy that did not get so far', () => {
    const replicaError = { code: 'REPLICA_NOT_FOUND', message: 'no root' } as const;
    expect(stateOf({ nowMs: NOW_MS, replicaError }).state).toBe('initial-replication');
    expect(stateOf({ nowMs: NOW_MS, replicaError, wasSeen: true }).state).toBe('unknown');
  });

  it('without a tracker follows what the last cycle was refused for; a tracker knows better', () => {
    const lastFailure = { code: 'RESYNC_REQUIRED', message: 'not tracked', firstMs: NOW_MS, count: 1 } as const;
    const { tracking, ...untracked } = HEALTHY;
    expect(stateOf({ ...untracked, lastFailure })).toEqual({ state: 'resync-required', reason: 'not tracked' });
    expect(stateOf({ ...untracked, tracking: tracking!, lastFailure }).state).toBe('protected');
  });

  it('is not changed by a failure that will pass', () => {
    const lastFailure = { code: 'STORE_TIMEOUT', message: 'no answer', firstMs: NOW_MS, count: 9 } as const;
    expect(stateOf({ ...HEALTHY, lastFailure }).state).toBe('protected');
    expect(stateOf({ ...marked(HEALTHY), lastFailure }).state).toBe('resync-required');
  });

  it('is not changed by disks that nobody follows', () => {
    const sourceError = { code: 'DISK_NOT_FOUND', message: 'gone' } as const;
    for (const state of ['synced', 'failed-over', 'other-side', 'ended'] as const) {
      expect(stateOf({ ...MACHINES[state], sourceError }).state).toBe(state);
    }
  });

  it('is a resync that is required until the tracker itself says that it ended', () => {
    expect(stateOf(withReplica(HEALTHY, { sync: 'resync' })).state).toBe('resync-required');
    const tracking = { mode: 'resyncing', served: true, stopped: false } as const;
    expect(stateOf({ ...HEALTHY, tracking }).state).toBe('resync-required');
    expect(stateOf({ ...HEALTHY, tracking, running: 'resync' }).state).toBe('resyncing');
  });

  it('of an interrupted apply is the one it was: the next apply finishes it', () => {
    expect(stateOf(withReplica(HEALTHY, { sync: 'apply' })).state).toBe('protected');
  });

  it('does not wait for a commit while disks are still being brought back', () => {
    const { waiting } = MACHINES['failover-waiting'];
    expect(stateOf({ ...HEALTHY, waiting: { ...waiting!, isComplete: false } }).state).toBe('protected');
  });

  it('of an owner that ended is ended for everybody', () => {
    expect(stateOf(withOwner(HEALTHY, { phase: 'ended', isOurs: false })).state).toBe('ended');
  });
});

describe('a transition', () => {
  const known = EVERY.filter(([state]) => state !== 'unknown');
  const rows = known.flatMap(([state, facts]) =>
    TRIGGERS.filter((trigger) => targetOf(state, trigger) !== undefined).map(
      (trigger) => [state, trigger, facts] as const,
    ),
  );

  it('stands in the table for every state', () => {
    expect(rows.length).toBeGreaterThan(100);
    expect(new Set(rows.map(([state]) => state)).size).toBe(STATES.length - 1);
    expect(new Set(rows.map(([, trigger]) => trigger)).size).toBe(TRIGGERS.length);
  });

  it.each(rows)('from %s by %s leads where the facts say', (state, trigger, facts) => {
    const from = stateOf(facts);
    expect(from.state).toBe(state);
    // Only the table says so here; everybody else is held to it by the compiler.
    const to = transition(from, trigger as never);
    expect(stateOf(EFFECTS[trigger](facts)).state).toBe(to);
  });

  it('`back` is said only of states that lie over another one', () => {
    for (const [state, facts] of known) {
      const usesBack = TRIGGERS.some((trigger) => targetOf(state, trigger) === 'back');
      if (usesBack) expect(stateOf(facts)).toHaveProperty('back');
    }
  });

  it('that is illegal does not compile', () => {
    const paused = { state: 'suspended', sinceMs: NOW_MS, back: 'protected' } as const satisfies LifeState;
    expect(transition(paused, 'resume')).toBe('protected');
    // @ts-expect-error: a paused machine ships nothing
    expect(() => transition(paused, 'ship')).not.toThrow();
    const elsewhere = { state: 'other-side', owner: HEALTHY.replica.owner } as const satisfies LifeState;
    expect(transition(elsewhere, 'failback')).toBe('failback-waiting');
    // @ts-expect-error: who is not the owner cannot reverse
    expect(() => transition(elsewhere, 'reverse')).not.toThrow();
  });
});

describe('a verb', () => {
  const LETTERS: Readonly<Record<string, string>> = {
    ILLEGAL_STATE: '-',
    REPLICA_OTHER_SIDE: 'o',
    RESYNC_REQUIRED: 'r',
  };
  const cell = (state: LifeStateName, verb: (typeof VERBS)[number]): string => {
    const refused = refusal(stateOf(MACHINES[state]), verb, 'web1');
    return refused ? LETTERS[refused.code]! : '+';
  };

  it('is possible or refused in every state: the whole table', () => {
    const table = STATES.map((state) => `${state.padEnd(20)}${VERBS.map((verb) => cell(state, verb)).join('')}`);
    // protect ship apply resync, failover test planned, commit cancel failback reverse, end pause resume
    expect(table).toEqual([
      'not-protected       +-------------',
      'ready               +----------+++',
      'initial-replication ++++-------+++',
      'protected           +++++++-+++++-',
      'synced              oo+o+++-++----',
      'failover-waiting    -++++++++--+++',
      'failed-over         oo+o-+---+++--',
      'suspended           --+-++--++-+-+',
      'error               +++++++-++++++',
      'resync-required     +r+++++-+++++-',
      'resyncing           -r--++------+-',
      'resync-suspended    --+-++--++-+-+',
      'failback-waiting    oo+o-+-+++-+--',
      'other-side          oo+o+++-++----',
      'ended               oo+o++-----+--',
      'unknown             ++++++++++++++',
    ]);
  });

  it('that is refused says in which state, and what to do instead', () => {
    for (const [state, facts] of EVERY) {
      for (const verb of VERBS) {
        const refused = refusal(stateOf(facts), verb, 'web1');
        expect(refused === undefined, `${state} ${verb}`).toBe(targetOf(state, verb) !== undefined);
        if (!refused) continue;
        expect(refused.facts).toEqual({ state, verb });
        expect(refused.message).toMatch(/^[a-z].+: .+[^.]$/);
        expect(refused.hint, `${state} ${verb}`).toBeTruthy();
        expect(`${refused.message} ${refused.hint}`).not.toMatch(/NAME|undefined/);
      }
    }
  });

  it('that advice names is a command that a page describes', () => {
    const page = (name: string): string => readFileSync(join(import.meta.dirname, '../../../docs', name), 'utf8');
    const pages = ['cli.md', 'life.md', 'agent.md'].map(page).join('\n');
    const hints = EVERY.flatMap(([, facts]) => VERBS.map((verb) => refusal(stateOf(facts), verb)?.hint ?? ''));
    const commands = new Set(hints.flatMap((hint) => hint.match(/(?<=blockferry )(?:agent )?[a-z]+/g) ?? []));
    expect(commands.size).toBeGreaterThan(5);
    for (const command of commands) {
      const verb = command.replace('agent ', '');
      expect(pages, command).toMatch(new RegExp(`\\b${verb}\\b[^\`]* \\[?NAME`));
    }
  });

  it('is told with the numbers of the state', () => {
    expect(refusal(stateOf(MACHINES.suspended), 'ship', 'web1')).toMatchObject({
      code: 'ILLEGAL_STATE',
      area: 'usage',
      message: 'nothing can be shipped: it is paused since 2026-11-21T11:59:00Z',
      hint: 'let it go on first: blockferry agent resume web1',
    });
    expect(refusal(stateOf(MACHINES['other-side']), 'ship')?.message).toContain('since epoch 2');
    expect(refusal(stateOf(MACHINES['resync-required']), 'ship')?.message).toContain('8388608 bytes');
  });
});
