/** Every reason that health knows: reached by facts, told with numbers and a next step, worst first, at its exact threshold. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type CycleFigures,
  HEALTH_THRESHOLDS,
  healthOf,
  type ItemFacts,
  isRecoverable,
  LIFE_STATES,
  type LifeStateName,
  REASON_CODES,
  type ReasonCode,
  reasonOfError,
  remedyOf,
  stateOf,
  VERBS,
} from '../../../src/agent/life/index.ts';
import { spaceVerdict } from '../../../src/agent/policy/index.ts';
import { ERROR_CODES, type ErrorCode } from '../../../src/errors.ts';
import { HEALTHY, HOUR_MS, MACHINES, MINUTE_MS, marked, NOW_MS, withOwner, withReplica } from './machines.ts';

interface Sample {
  readonly facts: ItemFacts;
  readonly figures?: CycleFigures;
  readonly rpoMs?: number;
}

const health = ({ facts, figures, rpoMs }: Sample) =>
  healthOf(facts, figures, { ...HEALTH_THRESHOLDS, ...(rpoMs === undefined ? {} : { rpoMs }) });
const codes = (sample: Sample): readonly ReasonCode[] => health(sample).findings.map(({ code }) => code);

const { replica: _, ...CLOSED } = HEALTHY;
const unopened = (code: ErrorCode): Sample => ({
  facts: { ...CLOSED, wasSeen: true, replicaError: { code, message: `${code} 1` } },
});
const ofDisk = (code: ErrorCode): Sample => ({ facts: { ...HEALTHY, sourceError: { code, message: `${code} 1` } } });
const failed = (code: ErrorCode, count = 3): Sample => ({
  facts: { ...HEALTHY, lastFailure: { code, message: `${code} 1`, firstMs: NOW_MS - 5 * MINUTE_MS, count } },
});
const { tracking: _tracking, ...UNTRACKED } = HEALTHY;
const space = (freeBytes: number, totalBytes = 100): Sample => ({
  facts: HEALTHY,
  figures: { space: { verdict: spaceVerdict(freeBytes, totalBytes), freeBytes, totalBytes } },
});
const ended = (how: 'in-order' | 'without-warning'): ItemFacts => ({
  ...HEALTHY,
  tracking: { mode: 'logging', served: false, stopped: false, ended: how },
});

const TAKEN_OVER = {
  url: 'file:///b',
  behindMs: 0,
  trouble: { firstMs: NOW_MS - HOUR_MS, count: 7, code: 'SPLIT_BRAIN', message: 'another side took over' },
} as const;

/** Facts that reach each reason. One that is not in the catalogue, or is missing here, does not compile. */
const SAMPLES: Readonly<Record<ReasonCode, Sample>> = {
  REPLICA_ROLLED_BACK: unopened('REPLICA_ROLLED_BACK'),
  REPLICA_UNREADABLE: unopened('REPLICA_ROOT'),
  REPLICA_DAMAGED: failed('REPLICA_SLOT'),
  REPLICA_GONE: unopened('REPLICA_NOT_FOUND'),
  STORE_GONE: unopened('STORE_NOT_FOUND'),
  LOCAL_STATE_DAMAGED: { facts: { ...HEALTHY, localError: { code: 'LOCAL_STATE', message: 'state.json: offset 1' } } },
  SOURCE_GONE: ofDisk('DISK_NOT_FOUND'),
  CHAIN_BROKEN: ofDisk('CHAIN_PARENT_NOT_FOUND'),
  SOURCE_DAMAGED: ofDisk('VHDX_HEADER'),
  SOURCE_UNREADABLE: ofDisk('DISK_UNREADABLE'),
  SOURCE_CHANGED: failed('SOURCE_CHANGED'),
  SPLIT_BRAIN: failed('SPLIT_BRAIN'),
  CREDENTIALS_REFUSED: unopened('STORE_AUTHENTICATION'),
  KEY_MISSING: unopened('KEY_MISSING'),
  KEY_REFUSED: unopened('KEY_WRONG'),
  STORE_REFUSED: failed('STORE_REFUSED'),
  STORE_FULL: failed('STORE_FULL'),
  STORE_UNREACHABLE: unopened('STORE_UNREACHABLE'),
  STORE_THROTTLED: failed('STORE_THROTTLED'),
  STORE_CORRUPTS: failed('STORE_CORRUPT_TRANSFER'),
  REPLICA_HELD: failed('REPLICA_LEASED'),
  REPLICA_FULL: failed('REPLICA_FULL'),
  LOGS_UNUSABLE: { facts: { ...UNTRACKED, lastFailure: { ...failed('HRL_TORN').facts.lastFailure! } } },
  REPLICATION_FAILED: failed('UNSUPPORTED'),
  FREEZE_FAILED: failed('FREEZE_FAILED'),
  RETRYING: failed('ITEM_LOCKED'),
  RESYNC_NO_SPACE: { facts: marked(HEALTHY, 'NO_SPACE') },
  RESYNC_LOG_FAILED: { facts: marked(HEALTHY, 'LOG_FAILED') },
  RESYNC_MAP_LOST: { facts: marked(HEALTHY, 'MAP_LOST') },
  RESYNC_EDITED_OFFLINE: { facts: marked(HEALTHY, 'EDITED_OFFLINE') },
  RESYNC_LOG_LOST: { facts: marked(HEALTHY, 'LOG_LOST') },
  RESYNC_LOG_CHAIN: { facts: marked(HEALTHY, 'LOG_CHAIN') },
  RESYNC_LOG_HALF_FULL: { facts: marked(HEALTHY, 'LOG_HALF_FULL') },
  RESYNC_NOT_SYNCED: { facts: marked(HEALTHY, 'NOT_SYNCED') },
  RESYNC_INTERRUPTED: { facts: marked(HEALTHY, 'RESYNC_INTERRUPTED') },
  WRITES_NOT_FOLLOWED: { facts: MACHINES['other-side'] },
  REVERSE_MISSING: { facts: MACHINES['failed-over'] },
  OTHER_SIDE: { facts: MACHINES['other-side'] },
  PLANNED_FAILOVER_WAITING: { facts: MACHINES.synced },
  GUEST_WRITES_STOPPED: { facts: { ...HEALTHY, tracking: { mode: 'logging', served: true, stopped: true } } },
  FAILOVER_WAITING: { facts: MACHINES['failover-waiting'] },
  FAILBACK_WAITING: { facts: MACHINES['failback-waiting'] },
  RESTORE_UNFINISHED: {
    facts: { ...HEALTHY, waiting: { ...MACHINES['failover-waiting'].waiting!, isComplete: false } },
  },
  SUSPENDED: { facts: MACHINES.suspended },
  SPACE_STOP: space(19),
  SPACE_THROTTLE: space(24),
  UPLOAD_STUCK: { facts: HEALTHY, figures: { upload: { level: 'critical', minutes: 46 } } },
  STORE_TAKEN_OVER: { facts: HEALTHY, figures: { stores: [TAKEN_OVER] } },
  INITIAL_INCOMPLETE: { facts: MACHINES['initial-replication'] },
  BEHIND: { facts: withReplica(HEALTHY, { newestPointMs: NOW_MS - 2 * HOUR_MS }) },
  GROUP_APART: {
    facts: HEALTHY,
    figures: { apart: { group: 'shop', firstMs: NOW_MS - HOUR_MS, count: 7, message: 'db: a resync is required' } },
  },
  STORE_BEHIND: {
    facts: HEALTHY,
    rpoMs: 2 * HOUR_MS,
    figures: { stores: [{ url: 'file:///b', behindMs: 2 * HOUR_MS + 1 }] },
  },
  RPO_EXCEEDED: { facts: HEALTHY, rpoMs: MINUTE_MS - 1 },
  CYCLES_MISSED: { facts: HEALTHY, figures: { due: 10, missed: 3 } },
  LATENCY_HIGH: { facts: HEALTHY, figures: { averageLatencyMs: 6 * MINUTE_MS } },
  UPLOAD_SLOW: { facts: HEALTHY, figures: { upload: { level: 'warning', minutes: 31 } } },
  LOG_FILLING: { facts: { ...HEALTHY, tracking: { ...HEALTHY.tracking!, halfFullInMs: 40 * MINUTE_MS } } },
  TRACKER_NOT_RUNNING: { facts: ended('without-warning') },
  SPACE_LOW: space(29),
  RETENTION_UNFIT: { facts: HEALTHY, figures: { retention: '/mnt/r is on the same volume as disk /vm/1.raw' } },
  APPLY_UNFINISHED: { facts: withReplica(HEALTHY, { sync: 'apply' }) },
};

/** Those whose cause is a plain statement: there is no number to tell. */
const WITHOUT_NUMBERS = new Set<ReasonCode>([
  'GUEST_WRITES_STOPPED',
  'INITIAL_INCOMPLETE',
  'TRACKER_NOT_RUNNING',
  'APPLY_UNFINISHED',
]);

describe('a reason', () => {
  it('is none of a machine that replicates', () => {
    expect(healthOf(HEALTHY)).toEqual({ level: 'normal', findings: [] });
    const figures = { due: 144, missed: 0, averageLatencyMs: 900, upload: { level: 'ok', minutes: 1 } } as const;
    expect(healthOf(HEALTHY, { ...figures, ...space(80).figures })).toEqual({ level: 'normal', findings: [] });
  });

  it.each(REASON_CODES)('$code is reached, with its cause and the next step', ({ code, severity }) => {
    const { level, findings } = health(SAMPLES[code]);
    const finding = findings.find((each) => each.code === code)!;
    expect(finding, JSON.stringify(findings)).toMatchObject({ code, severity });
    expect(level).toBe(findings[0]!.severity);
    if (!WITHOUT_NUMBERS.has(code)) expect(finding.cause).toMatch(/\d/);
    expect(finding.action.length).toBeGreaterThan(10);
    expect(`${finding.cause} ${finding.action}`).not.toMatch(/NAME|undefined|NaN|\.$/);
  });

  it('of a store that another side took over is none of who has stopped, or is the owner no more', () => {
    const figures = { stores: [TAKEN_OVER] };
    for (const facts of [MACHINES.synced, MACHINES['other-side'], MACHINES['failed-over']]) {
      expect(healthOf(facts, figures).findings.map(({ code }) => code)).not.toContain('STORE_TAKEN_OVER');
    }
  });

  it('that the facts show alone is the only one', () => {
    const together = new Set(['WRITES_NOT_FOLLOWED', 'OTHER_SIDE', 'FAILBACK_WAITING', 'PLANNED_FAILOVER_WAITING']);
    for (const { code } of REASON_CODES) if (!together.has(code)) expect(codes(SAMPLES[code]), code).toEqual([code]);
  });

  it('that is worse comes first', () => {
    const facts: ItemFacts = {
      ...marked(withReplica(HEALTHY, { newestPointMs: NOW_MS - 3 * HOUR_MS, sync: 'apply' }), 'NO_SPACE'),
      sourceError: { code: 'CHAIN_CYCLE', message: 'cycle' },
      suspendedSinceMs: NOW_MS,
    };
    expect(codes({ facts, figures: { due: 10, missed: 9, ...space(10).figures } })).toEqual([
      'CHAIN_BROKEN',
      'RESYNC_NO_SPACE',
      'SPACE_STOP',
      'SUSPENDED',
      'BEHIND',
      'CYCLES_MISSED',
      'APPLY_UNFINISHED',
    ]);
  });

  it('of pace does not count where other disks are followed', () => {
    const sample = { figures: { due: 10, missed: 9, averageLatencyMs: HOUR_MS }, rpoMs: 1 };
    for (const state of ['synced', 'failed-over', 'ended'] as const) {
      const facts = { ...MACHINES[state], sourceError: { code: 'DISK_NOT_FOUND', message: 'gone' } as const };
      const found = codes({ ...sample, facts });
      expect(
        found.filter((code) => /BEHIND|RPO|CYCLES|LATENCY|SOURCE/.test(code)),
        state,
      ).toEqual([]);
    }
  });

  it('says how often it was tried, and when it is tried next', () => {
    expect(health(failed('STORE_TIMEOUT')).findings[0]!.cause).toBe(
      'STORE_TIMEOUT 1; 3 tries since 2026-11-21T11:55:00Z, next at 2026-11-21T11:59:00Z',
    );
    expect(health(failed('STORE_REFUSED', 1)).findings[0]!.cause).toBe(
      'STORE_REFUSED 1; 1 try since 2026-11-21T11:55:00Z',
    );
  });

  it('says when it is tried next, where attempts took long', () => {
    const { lastFailure, ...facts } = failed('STORE_TIMEOUT').facts;
    const late = { ...facts, lastFailure: { ...lastFailure!, lastMs: NOW_MS } };
    expect(health({ facts: late }).findings[0]?.cause).toContain('next at 2026-11-21T12:03:00Z');
  });

  it('does not miss a replica that its first copy has not made yet', () => {
    const { facts } = unopened('REPLICA_NOT_FOUND');
    expect(codes({ facts: { ...facts, wasSeen: false } })).not.toContain('REPLICA_GONE');
  });

  it('gives the step of the error where it knows one', () => {
    const facts = {
      ...CLOSED,
      replicaError: { code: 'KEY_MISSING', message: 'a.key', hint: 'put a.key back' },
    } as const;
    expect(health({ facts }).findings[0]!.action).toBe('put a.key back');
  });

  it('of writes that are not followed ends with the tracker or with the stop of the writes', () => {
    const { tracking, ...rest } = MACHINES['other-side'];
    expect(codes({ facts: rest })).toEqual(['OTHER_SIDE']);
    expect(codes({ facts: { ...rest, tracking: { ...tracking!, stopped: true } } })).not.toContain(
      'WRITES_NOT_FOLLOWED',
    );
    expect(codes({ facts: MACHINES.ended })).toEqual(['WRITES_NOT_FOLLOWED']);
  });

  it('of a failover without reverse replication is told on both sides', () => {
    const there = withOwner(HEALTHY, { isOurs: false, phase: 'failed-over', epoch: 2, point: 'p7' });
    expect(codes({ facts: there })).toContain('REVERSE_MISSING');
  });

  it('of a resync is not told twice, nor before there is a point', () => {
    const twice = { ...marked(HEALTHY, 'LOG_LOST'), lastFailure: failed('HRL_CHAIN').facts.lastFailure! };
    expect(codes({ facts: twice })).toEqual(['RESYNC_LOG_LOST']);
    expect(codes({ facts: withReplica(marked(HEALTHY), { points: 0 }) })).toEqual(['INITIAL_INCOMPLETE']);
    expect(codes({ facts: withReplica(HEALTHY, { sync: 'resync' }) })).toEqual(['RESYNC_INTERRUPTED']);
  });

  it('of a resync that runs asks nothing of the operator', () => {
    expect(health({ facts: MACHINES.resyncing }).findings[0]).toMatchObject({ action: 'nothing: the resync runs' });
  });
});

describe('a threshold', () => {
  const behind = (ms: number): Sample => ({ facts: withReplica(HEALTHY, { newestPointMs: NOW_MS - ms }) });
  const filling = (ms: number): Sample => ({
    facts: { ...HEALTHY, tracking: { ...HEALTHY.tracking!, halfFullInMs: ms } },
  });
  const latency = (averageLatencyMs: number): Sample => ({ facts: HEALTHY, figures: { averageLatencyMs } });
  it.each<readonly [string, Sample, Sample, ReasonCode]>([
    [
      '20 % missed',
      { facts: HEALTHY, figures: { due: 5, missed: 1 } },
      { facts: HEALTHY, figures: { due: 1000, missed: 201 } },
      'CYCLES_MISSED',
    ],
    ['an hour since the last cycle', behind(HOUR_MS), behind(HOUR_MS + 1), 'BEHIND'],
    ['5 minutes of latency', latency(5 * MINUTE_MS), latency(5 * MINUTE_MS + 1), 'LATENCY_HIGH'],
    ['the RPO', { facts: HEALTHY, rpoMs: MINUTE_MS }, { facts: HEALTHY, rpoMs: MINUTE_MS - 1 }, 'RPO_EXCEEDED'],
    ['half full in an hour', filling(HOUR_MS + 1), filling(HOUR_MS), 'LOG_FILLING'],
    ['30 % free', space(300, 1000), space(299, 1000), 'SPACE_LOW'],
    ['25 % free', space(250, 1000), space(249, 1000), 'SPACE_THROTTLE'],
    ['20 % free', space(200, 1000), space(199, 1000), 'SPACE_STOP'],
  ])('%s is met exactly', (_name, at, beyond, code) => {
    expect(codes(at)).not.toContain(code);
    expect(codes(beyond)).toContain(code);
  });

  it('of the logs does not take a burst for a trend', () => {
    const withShare = (logShare: number): Sample => ({
      facts: { ...HEALTHY, tracking: { ...HEALTHY.tracking!, halfFullInMs: MINUTE_MS, logShare } },
    });
    expect(codes(withShare(0.249))).toEqual([]);
    expect(codes(withShare(0.25))).toEqual(['LOG_FILLING']);
  });

  it('of the RPO only warns, however old the newest point is', () => {
    const facts = withReplica(HEALTHY, { newestPointMs: 0 });
    expect(health({ facts, rpoMs: MINUTE_MS }).level).toBe('warning');
  });

  it('of the last cycle looks at cycles that made no point, too', () => {
    const facts = withReplica(HEALTHY, { newestPointMs: NOW_MS - 2 * HOUR_MS });
    expect(codes({ facts, figures: { lastSynchronisedMs: NOW_MS - HOUR_MS } })).toEqual([]);
    const unknown = { ...MACHINES.unknown };
    expect(codes({ facts: unknown, figures: { lastSynchronisedMs: NOW_MS - 2 * HOUR_MS } })).toEqual([
      'STORE_UNREACHABLE',
      'BEHIND',
    ]);
  });

  it('of an upload that never ends is told as that', () => {
    const { findings } = health({ facts: HEALTHY, figures: { upload: { level: 'critical', minutes: Infinity } } });
    expect(findings[0]!.cause).toBe('4 KiB wait, and nothing gets through');
  });
});

describe('an error', () => {
  const all = Object.keys(ERROR_CODES) as ErrorCode[];

  it.each(all)('%s has a reason wherever it is met', (code) => {
    expect(SAMPLES).toHaveProperty(reasonOfError(code));
    expect(stateOf(unopened(code).facts).state).toBe('unknown');
    expect(codes(unopened(code))).toContain(reasonOfError(code));
    expect(codes(failed(code))).toContain(reasonOfError(code));
    expect(isRecoverable(code)).toBe(remedyOf(code) === 'retry');
  });

  it('that waits for a person is critical at once, and the state says so', () => {
    for (const code of all.filter((each) => remedyOf(each) === 'person')) {
      expect(health(failed(code, 1)).level, code).toBe('critical');
      expect(stateOf(failed(code, 1).facts).state, code).toBe('error');
    }
  });

  it('is one that waits for a person exactly where the published systems wait for one', () => {
    const classes = (areas: RegExp): readonly ErrorCode[] => all.filter((code) => areas.test(code));
    // A broken chain, an invalid replica, authentication, authorization, a source that is gone.
    const waits = classes(
      /^CHAIN_|^VHD|^DISK_(?:NOT|UN|TR)|^KEY_|^STORE_(?:AUTH|REFUSED|NOT)|^REPLICA_(?:RO|MAN|SL|LOG|K|DE|NOT)/,
    );
    for (const code of waits) expect(isRecoverable(code), code).toBe(false);
    // The network, space, memory, another writer.
    const passes = classes(
      /^STORE_(?:UN|TIME|THR|CORR|COND|FULL)|^ITEM_LOCKED|^REPLICA_(?:LEA|FEN)|^WORKER|^OUTPUT_FAILED|^TRACKER/,
    );
    for (const code of passes) expect(isRecoverable(code), code).toBe(true);
    expect(waits.length + passes.length).toBeGreaterThan(40);
  });
});

describe('any facts', () => {
  const ms = fc.oneof(
    fc.integer({ min: 0, max: NOW_MS * 2 }),
    fc.constantFrom(NaN, Infinity, -Infinity, -1, 8.64e15, 1e300),
  );
  const error = fc.record({
    code: fc.constantFrom(...(Object.keys(ERROR_CODES) as ErrorCode[])),
    message: fc.string(),
  });
  const optional = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(value, { nil: undefined });
  // What hides the states below it is rare, so that those are seen too.
  const rare = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
    fc.oneof({ weight: 5, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value });
  const reasons = [
    'NOT_SYNCED',
    'LOG_HALF_FULL',
    'LOG_FAILED',
    'NO_SPACE',
    'LOG_LOST',
    'LOG_CHAIN',
    'EDITED_OFFLINE',
    'MAP_LOST',
    'RESYNC_INTERRUPTED',
  ] as const;
  const facts = fc.record({
    nowMs: ms,
    item: optional(fc.string()),
    replica: optional(
      fc.record({
        owner: fc.record({
          isOurs: fc.boolean(),
          phase: fc.constantFrom('replicating', 'replicating', 'replicating', 'synced', 'failed-over', 'ended'),
          epoch: fc.nat(),
          point: optional(fc.string()),
          sinceMs: ms,
        }),
        sync: optional(fc.constantFrom('initial', 'resync', 'apply')),
        points: fc.nat(2),
        newestPointMs: optional(ms),
        outstandingLogs: fc.nat(),
        backlogBytes: ms,
      }),
    ),
    replicaError: rare(error),
    wasSeen: optional(fc.boolean()),
    sourceError: rare(error),
    localError: rare(error),
    tracking: optional(
      fc.record({
        mode: fc.constantFrom('logging', 'resyncing', 'resync-required'),
        reason: optional(fc.record({ code: fc.constantFrom(...reasons), message: fc.string(), sinceMs: ms })),
        served: fc.boolean(),
        stopped: fc.boolean(),
        ended: optional(fc.constantFrom('in-order', 'without-warning')),
        halfFullInMs: optional(ms),
        logShare: optional(ms),
      }),
    ),
    waiting: rare(
      fc.record({
        kind: fc.constantFrom('failover', 'failback'),
        pointId: fc.string(),
        sinceMs: ms,
        isComplete: optional(fc.boolean()),
      }),
    ),
    suspendedSinceMs: optional(ms),
    firstCopyAtMs: optional(ms),
    running: optional(fc.constantFrom(...VERBS)),
    lastFailure: rare(fc.tuple(error, ms, fc.nat()).map(([each, firstMs, count]) => ({ ...each, firstMs, count }))),
  }) as unknown as fc.Arbitrary<ItemFacts>;
  const figures = fc.record({
    due: optional(fc.nat()),
    missed: optional(fc.nat()),
    averageLatencyMs: optional(ms),
    lastSynchronisedMs: optional(ms),
    upload: optional(fc.record({ level: fc.constantFrom('ok', 'warning', 'critical'), minutes: ms })),
    space: optional(
      fc.record({ verdict: fc.constantFrom('ok', 'low', 'throttle', 'stop'), freeBytes: ms, totalBytes: ms }),
    ),
  }) as unknown as fc.Arbitrary<CycleFigures>;
  const order = REASON_CODES.map(({ code }) => code);
  const neverNormal: readonly LifeStateName[] = [
    'ready',
    'initial-replication',
    'synced',
    'failover-waiting',
    'failback-waiting',
    'failed-over',
    'suspended',
    'error',
    'resync-required',
    'resync-suspended',
    'other-side',
    'unknown',
  ];

  it('have a state and a health: normal exactly where there is no finding, and worst first', () => {
    const seen = new Set<LifeStateName>();
    fc.assert(
      fc.property(facts, figures, (each, measured) => {
        const { state } = stateOf(each);
        seen.add(state);
        expect(LIFE_STATES).toHaveProperty([state]);
        const { level, findings } = healthOf(each, measured);
        expect(level).toBe(findings.length === 0 ? 'normal' : findings[0]!.severity);
        const places = findings.map(({ code }) => order.indexOf(code));
        expect(places).toEqual([...new Set(places)].sort((a, b) => a - b));
        if (neverNormal.includes(state)) expect(level, state).not.toBe('normal');
        for (const finding of findings) expect(finding.action).not.toBe('');
      }),
      { numRuns: 5000 },
    );
    expect(seen.size).toBeGreaterThan(12);
  });
});
