/** The scheduler over a virtual clock: what runs when, what a failure costs, and that nobody waits for another. */
import { expect, test } from 'vitest';
import { configOf, engineLab, HOUR, MINUTE, NOON, scripted } from './engine-lab.ts';

/** Minutes since the start, rounded, of calls. */
const minutes = (calls: readonly { readonly atMs: number }[], startMs = NOON): readonly number[] =>
  calls.map(({ atMs }) => Math.round((atMs - startMs) / MINUTE));

const hit = <T>(items: readonly T[]): T => items.at(-1)!;

test('the first copy waits for its time, then cycles follow at their interval', async () => {
  const config = configOf('- name: vm\n    first-copy-at: 2026-12-01T13:00:00Z\n    every: 5min');
  const lab = engineLab(config, { machines: new Map([['vm', scripted({ isProtected: false })]]) });
  await lab.pass(59 * MINUTE);
  expect(lab.of('vm', 'protect')).toEqual([]);
  expect(lab.engine.status()[0]).toMatchObject({ state: 'ready', next: { verb: 'protect', dueMs: NOON + HOUR } });
  await lab.pass(17 * MINUTE);
  expect(minutes(lab.of('vm', 'protect'))).toEqual([60]);
  expect(minutes(lab.of('vm', 'ship'))).toEqual([65, 70, 75]);
  await lab.stop();
});

test('it sleeps until something is due: an hour of cycles costs two timers each, an idle hour none', async () => {
  const lab = engineLab(configOf('- name: vm\n    every: 15min'));
  await lab.pass(HOUR - 1);
  expect(lab.of('vm', 'ship').length).toBe(4);
  await lab.engine.machine('vm').pause();
  const before = lab.calls.length;
  await lab.pass(24 * HOUR);
  expect(lab.calls.length).toBe(before);
  await lab.stop();
});

test('a cycle that overruns delays the next, and those that fell out are counted, not made up for', async () => {
  const vm = scripted({ tookMs: { ship: 12 * MINUTE } });
  const lab = engineLab(configOf('- name: vm\n    every: 5min'), { machines: new Map([['vm', vm]]) });
  await lab.pass(30 * MINUTE);
  expect(minutes(lab.of('vm', 'ship'))).toEqual([0, 12, 24]);
  vm.tookMs.ship = 1;
  await lab.pass(20 * MINUTE);
  expect(minutes(lab.of('vm', 'ship')).slice(3)).toEqual([36, 41, 46]);
  const { totals, statistics } = lab.engine.status()[0]!;
  expect(totals).toMatchObject({ done: 6, missed: 3, failed: 0 });
  expect(statistics).toMatchObject({ done: 6, missed: 3, due: 9 });
  await lab.stop();
});

test('app-consistent points are made when they are due', async () => {
  const lab = engineLab(configOf('- name: vm\n    every: 15min\n    app-consistent: { every: 1h }'));
  await lab.pass(2 * HOUR - 1);
  const made = lab.of('vm', 'ship').map(({ consistency }) => consistency);
  expect(made).toEqual(['app', 'crash', 'crash', 'crash', 'app', 'crash', 'crash', 'crash']);
  await lab.stop();
});

test('logs are folded when there are enough of them, or when they are old', async () => {
  const many = engineLab(configOf('- name: vm\n    every: 5min\n    apply: { logs: 3, age: 7d }'));
  await many.pass(MINUTE);
  const first = many.of('vm', 'apply').length;
  await many.pass(34 * MINUTE);
  expect(minutes(many.of('vm', 'apply').slice(first))).toEqual([15, 30]);
  await many.stop();
  const old = engineLab(configOf('- name: vm\n    every: 5min\n    apply: { logs: 1000, age: 1h }'));
  await old.pass(3 * HOUR);
  expect(minutes(old.of('vm', 'apply'))).toEqual([0, 60, 120]);
  await old.stop();
});

test('a failure that may pass climbs the ladder of 1, 2, 4, 8, 10 and then every 30 minutes', async () => {
  const vm = scripted({ fails: { ship: 'STORE_UNREACHABLE' } });
  const lab = engineLab(configOf('- name: vm\n    every: 30s'), { machines: new Map([['vm', vm]]) });
  await lab.pass(101 * MINUTE);
  expect(minutes(lab.of('vm', 'ship'))).toEqual([0, 1, 2, 4, 8, 10, 40, 70, 100]);
  expect(lab.engine.status()[0]).toMatchObject({ failure: { code: 'STORE_UNREACHABLE', count: 9, recoverable: true } });
  delete vm.fails.ship;
  await lab.pass(30 * MINUTE + 1000);
  expect(lab.engine.status()[0]?.failure).toBeUndefined();
  expect(minutes(lab.of('vm', 'ship'))).toContain(130);
  const before = lab.of('vm', 'ship').length;
  await lab.pass(5 * MINUTE);
  expect(lab.of('vm', 'ship').length - before).toBe(10);
  await lab.stop();
});

test('a failure that only a person can mend is tried again by nobody until somebody says so', async () => {
  const vm = scripted({ fails: { ship: 'KEY_WRONG' } });
  const lab = engineLab(configOf('- name: vm\n    every: 1min'), { machines: new Map([['vm', vm]]) });
  await lab.pass(24 * HOUR);
  expect(lab.of('vm', 'ship').length).toBe(1);
  const [status] = lab.engine.status();
  expect(status).toMatchObject({ state: 'error', health: { level: 'critical' }, failure: { recoverable: false } });
  expect(status?.next).toBeUndefined();
  delete vm.fails.ship;
  await lab.engine.machine('vm').retry();
  await lab.pass(MINUTE);
  expect(lab.engine.status()[0]).toMatchObject({ state: 'protected' });
  await lab.stop();
});

test('a new configuration tries again what waited for a person, and nothing else', async () => {
  const machines = new Map([
    ['waits', scripted({ fails: { ship: 'KEY_WRONG' } })],
    ['climbs', scripted({ fails: { ship: 'STORE_UNREACHABLE' } })],
  ]);
  const config = configOf('- name: waits\n- name: climbs');
  const lab = engineLab(config, { machines });
  await lab.pass(11 * MINUTE);
  await lab.engine.apply(config);
  await lab.pass(MINUTE);
  expect(minutes(lab.of('waits', 'ship'))).toEqual([0, 11]);
  expect(minutes(lab.of('climbs', 'ship'))).toEqual([0, 1, 2, 4, 8, 10]);
  await lab.stop();
});

test('a resync waits for its window, stops when it closes, and goes on in the next one', async () => {
  const vm = scripted({ needsResync: true, tookMs: { resync: 13 * HOUR } });
  const lab = engineLab(configOf('- name: vm\n    resync: 18:30-06:00'), { machines: new Map([['vm', vm]]) });
  await lab.pass(6 * HOUR);
  expect(lab.of('vm', 'resync')).toEqual([]);
  expect(lab.engine.status()[0]).toMatchObject({ state: 'resync-required', next: { dueMs: NOON + 6.5 * HOUR } });
  await lab.pass(24 * HOUR);
  expect(minutes(lab.of('vm', 'resync'))).toEqual([390]);
  expect(lab.events).toContainEqual(
    expect.objectContaining({ type: 'operation-stopped', verb: 'resync', timeMs: NOON + 18 * HOUR }),
  );
  vm.tookMs.resync = HOUR;
  await lab.pass(2 * HOUR);
  expect(lab.engine.status()[0]).toMatchObject({ state: 'protected' });
  expect(minutes(lab.of('vm', 'resync'))).toEqual([390, 390 + 24 * 60]);
  await lab.stop();
});

test('a cycle that finds that a resync is required waits for the window, without a ladder', async () => {
  const vm = scripted();
  const lab = engineLab(configOf('- name: vm\n    every: 5min'), { machines: new Map([['vm', vm]]) });
  await lab.pass(MINUTE);
  vm.fails.ship = 'RESYNC_REQUIRED';
  vm.needsResync = true;
  await lab.pass(HOUR);
  expect(minutes(lab.of('vm', 'ship'))).toEqual([0, 5]);
  expect(lab.engine.status()[0]?.failure).toBeUndefined();
  expect(lab.engine.status()[0]).toMatchObject({ state: 'resync-required', next: { verb: 'resync' } });
  await lab.stop();
});

test('a resync that is asked for comes at once, whatever the window says, and does not stop when it closes', async () => {
  const vm = scripted({ needsResync: true, tookMs: { resync: 20 * HOUR } });
  const lab = engineLab(configOf('- name: vm\n    resync: manual'), { machines: new Map([['vm', vm]]) });
  await lab.pass(48 * HOUR);
  expect(lab.of('vm', 'resync')).toEqual([]);
  await lab.engine.machine('vm').resync();
  await lab.pass(21 * HOUR);
  expect(lab.of('vm', 'resync').length).toBe(1);
  expect(lab.engine.status()[0]).toMatchObject({ state: 'protected' });
  await lab.stop();
});

test('a pause stops what is under way and outlives a restart; what fell out meanwhile was not missed', async () => {
  const vm = scripted({ isProtected: false, tookMs: { protect: 10 * HOUR } });
  const machines = new Map([['vm', vm]]);
  const config = configOf('- name: vm\n    every: 5min');
  const lab = engineLab(config, { machines });
  await lab.pass(HOUR);
  await lab.engine.machine('vm').pause();
  await lab.pass(HOUR);
  expect(hit(lab.events.filter(({ type }) => type === 'operation-stopped'))).toMatchObject({ verb: 'protect' });
  await lab.stop();
  vm.isProtected = true;
  const again = engineLab(config, { machines, saved: lab.saved, startMs: NOON + 4 * HOUR });
  await again.pass(HOUR);
  expect(again.calls).toEqual([]);
  expect(again.engine.status()[0]?.suspendedSinceMs).toBe(NOON + HOUR);
  await again.engine.machine('vm').resume();
  await again.pass(MINUTE);
  expect(again.of('vm', 'ship').length).toBe(1);
  expect(again.engine.status()[0]?.totals).toMatchObject({ missed: 0, done: 1 });
  await again.stop();
});

test('a machine whose store is down delays nobody', async () => {
  const down = scripted({ fails: { ship: 'STORE_TIMEOUT', observe: 'STORE_TIMEOUT' } });
  const machines = new Map([['down', { ...down, tookMs: { ship: 40 * MINUTE, observe: 40 * MINUTE } }]]);
  const lab = engineLab(configOf('- name: down\n- name: up\n    every: 5min'), { machines });
  await lab.pass(2 * HOUR - 1);
  expect(minutes(lab.of('up', 'ship'))).toEqual(Array.from({ length: 24 }, (_, i) => 5 * i));
  expect(lab.engine.status()[1]?.totals).toMatchObject({ missed: 0, failed: 0 });
  await lab.stop();
});

test('lanes and bandwidth are shared by those that are active, and by no others', async () => {
  const slow = (): ReturnType<typeof scripted> => scripted({ isProtected: false, tookMs: { protect: HOUR } });
  const names = ['a', 'b', 'c'];
  const machines = new Map(names.map((name) => [name, slow()]));
  const lab = engineLab(
    configOf(names.map((name) => `- name: ${name}`).join('\n'), 'lanes: 30\nbandwidth: { other: 3000 }'),
    { machines },
  );
  await lab.pass(MINUTE);
  for (const { share } of lab.engine.status()) expect(share).toEqual({ lanes: 10, bandwidthBytesPerSecond: 1000 });
  await lab.engine.machine('a').pause();
  await lab.pass(MINUTE);
  const [, b, c] = lab.engine.status();
  for (const each of [b, c]) expect(each?.share).toEqual({ lanes: 15, bandwidthBytesPerSecond: 1500 });
  await lab.stop();
});

test('the bandwidth follows its profile in the midst of a transfer', async () => {
  const vm = scripted({ isProtected: false, tookMs: { protect: 24 * HOUR } });
  const lab = engineLab(
    configOf('- name: vm', 'bandwidth: { work-hours: { from: 08:00, to: 18:00, limit: 1000 }, other: 9000 }'),
    { machines: new Map([['vm', vm]]) },
  );
  await lab.pass(MINUTE);
  expect(lab.engine.status()[0]?.share?.bandwidthBytesPerSecond).toBe(1000);
  await lab.pass(6 * HOUR);
  expect(lab.engine.status()[0]?.share?.bandwidthBytesPerSecond).toBe(9000);
  await lab.stop();
});

test('where space is short, copies are slowed down and then not begun; cycles go on, since they free the logs', async () => {
  const machines = new Map([
    ['low', scripted({ isProtected: false, freeShare: 0.22 })],
    ['none', scripted({ isProtected: false, freeShare: 0.1 })],
    ['cycles', scripted({ freeShare: 0.1 })],
    ['told', scripted({ isProtected: false, freeShare: 0.1 })],
  ]);
  const lab = engineLab(
    configOf('- name: low\n- name: none\n- name: cycles\n- name: told\n    low-space: tell', 'lanes: 32'),
    {
      machines,
    },
  );
  await lab.pass(10 * MINUTE);
  expect(lab.of('low', 'protect').length).toBe(1);
  expect(lab.of('low', 'protect')[0]!.lanes).toBeLessThanOrEqual(8);
  expect(lab.of('none', 'protect')).toEqual([]);
  expect(lab.of('cycles', 'ship').length).toBe(2);
  expect(lab.of('told', 'protect').length).toBe(1);
  expect(lab.events).toContainEqual(expect.objectContaining({ type: 'space', machine: 'none', verdict: 'stop' }));
  machines.get('none')!.freeShare = 0.5;
  await lab.pass(10 * MINUTE);
  expect(lab.of('none', 'protect').length).toBe(1);
  await lab.stop();
});

test('a failed apply has a ladder of its own: cycles go on', async () => {
  const vm = scripted({ fails: { apply: 'REPLICA_SLOT' } });
  const lab = engineLab(configOf('- name: vm\n    every: 5min\n    apply: { logs: 1, age: 7d }'), {
    machines: new Map([['vm', vm]]),
  });
  await lab.pass(HOUR - 1);
  expect(lab.of('vm', 'ship').length).toBe(12);
  expect(lab.of('vm', 'apply').length).toBe(1);
  expect(lab.engine.status()[0]).toMatchObject({ upkeepFailure: { code: 'REPLICA_SLOT', recoverable: false } });
  expect(lab.engine.status()[0]?.health.level).toBe('critical');
  await lab.stop();
});

test('after a crash it goes on from what was saved: the cycle that is due, the ladder, the statistics', async () => {
  const vm = scripted();
  const machines = new Map([['vm', vm]]);
  const config = configOf('- name: vm\n    every: 15min\n    app-consistent: { every: 12h }');
  const lab = engineLab(config, { machines });
  await lab.pass(46 * MINUTE);
  vm.fails.ship = 'STORE_UNREACHABLE';
  await lab.pass(15 * MINUTE);
  // A crash: nothing is told to anybody.
  const saved = new Map(lab.saved);
  const startMs = lab.clock.nowMs();
  const again = engineLab(config, { machines, saved, startMs });
  await again.pass(61_000);
  expect(again.engine.status()[0]).toMatchObject({
    totals: { done: 4 },
    failure: { count: 3, firstMs: NOON + HOUR + 1 },
  });
  expect(minutes(again.of('vm', 'ship'))).toEqual([61, 62]);
  delete vm.fails.ship;
  await again.pass(20 * MINUTE);
  expect(hit(again.of('vm', 'ship'))).toMatchObject({ consistency: 'crash' });
  await lab.stop();
  await again.stop();
});

test('in a state that is a person’s business nothing is done, and its end is noticed', async () => {
  const vm = scripted();
  const owner = { isOurs: false, phase: 'replicating', epoch: 2, sinceMs: NOON } as const;
  const replica = { owner, points: 1, outstandingLogs: 0, backlogBytes: 0 };
  vm.facts = { replica };
  const lab = engineLab(configOf('- name: vm\n    every: 5min'), { machines: new Map([['vm', vm]]) });
  await lab.pass(HOUR);
  expect(lab.of('vm', 'ship')).toEqual([]);
  expect(lab.of('vm', 'observe').length).toBe(12);
  expect(lab.engine.status()[0]).toMatchObject({ state: 'other-side' });
  vm.facts = {};
  await lab.pass(5 * MINUTE);
  expect(lab.of('vm', 'ship').length).toBeGreaterThan(0);
  await lab.stop();
});

test('disks that wait for a commit change nothing for an owner that goes on; one that was stopped stays so', async () => {
  for (const [phase, cycles] of [
    ['replicating', 12],
    ['synced', 0],
  ] as const) {
    const vm = scripted();
    const owner = { isOurs: true, phase, epoch: 1, point: 'p3', sinceMs: NOON } as const;
    const waiting = { kind: 'failover', pointId: 'p3', sinceMs: NOON } as const;
    vm.facts = { replica: { owner, points: 1, outstandingLogs: 0, backlogBytes: 0 }, waiting };
    const lab = engineLab(configOf('- name: vm\n    every: 5min'), { machines: new Map([['vm', vm]]) });
    await lab.pass(HOUR);
    expect(lab.of('vm', 'ship').length, phase).toBe(cycles);
    expect(lab.engine.status()[0]).toMatchObject({ state: 'failover-waiting' });
    await lab.stop();
  }
});

test('a machine whose tracker is the agent’s to start waits for it, and goes on as soon as it serves', async () => {
  const vm = scripted();
  const tracking = { mode: 'logging', served: false, stopped: false } as const;
  vm.facts = { tracking };
  const lab = engineLab(configOf('- name: vm\n    every: 15min\n    serve: { listen: 127.0.0.1:0 }'), {
    machines: new Map([['vm', vm]]),
  });
  await lab.pass(HOUR);
  expect(lab.of('vm', 'ship')).toEqual([]);
  vm.facts = {};
  await lab.engine.machine('vm').trackerChanged();
  await lab.pass(1000);
  expect(lab.of('vm', 'ship').length).toBe(1);
  vm.fails.ship = 'TRACKER_GONE';
  await lab.pass(15 * MINUTE);
  vm.facts = { tracking };
  delete vm.fails.ship;
  await lab.engine.machine('vm').trackerChanged();
  await lab.pass(10 * MINUTE);
  expect(lab.of('vm', 'ship').length).toBe(2);
  vm.facts = {};
  await lab.engine.machine('vm').trackerChanged();
  await lab.pass(1000);
  expect(lab.of('vm', 'ship').length).toBe(3);
  await lab.stop();
});

test('machines are added, changed and taken out while the others go on', async () => {
  const lab = engineLab(configOf('- name: a\n    every: 5min\n- name: b\n    every: 5min'));
  await lab.pass(MINUTE);
  await lab.clock.run(lab.engine.apply(configOf('- name: b\n    every: 1min\n- name: c\n    every: 5min')));
  await lab.pass(3 * MINUTE + 1000);
  expect(lab.of('a', 'ship').length).toBe(1);
  expect(minutes(lab.of('b', 'ship'))).toEqual([0, 1, 2, 3, 4]);
  expect(lab.of('c', 'ship').length).toBe(1);
  expect(lab.events).toContainEqual(
    expect.objectContaining({ type: 'config-reloaded', added: ['c'], removed: ['a'], changed: ['b'] }),
  );
  expect(() => lab.engine.machine('a')).toThrow(expect.objectContaining({ code: 'ITEM_NOT_FOUND' }));
  await lab.stop();
});

test('a memory that cannot be kept is told, and nothing stops for it', async () => {
  const lab = engineLab(configOf('- name: vm\n    every: 5min'), { saved: new Map([['vm', '{"statistics":7}']]) });
  await lab.pass(11 * MINUTE);
  expect(lab.of('vm', 'ship').length).toBe(3);
  expect(lab.events).toContainEqual(expect.objectContaining({ type: 'notice', machine: 'vm', code: 'LOCAL_STATE' }));
  await lab.stop();
});

test('health and state are told when they change, and only then', async () => {
  const vm = scripted();
  const lab = engineLab(configOf('- name: vm\n    every: 5min'), { machines: new Map([['vm', vm]]) });
  await lab.pass(30 * MINUTE);
  expect(lab.events.filter(({ type }) => type === 'health-changed')).toEqual([]);
  vm.fails.ship = 'KEY_WRONG';
  await lab.pass(10 * MINUTE);
  delete vm.fails.ship;
  await lab.engine.machine('vm').retry();
  await lab.pass(10 * MINUTE);
  const levels = lab.events.flatMap((event) => (event.type === 'health-changed' ? [event.level] : []));
  // In between, the cycles that fell out are a warning.
  expect(levels).toEqual(['critical', 'warning', 'normal']);
  await lab.stop();
});

test('a retention folder that breaks a rule is told within a quarter of an hour, and after a reload at once', async () => {
  const vm = scripted();
  const config = configOf('- name: vm\n    every: 5min\n    failback: { retention: /mnt/r }');
  const lab = engineLab(config, { machines: new Map([['vm', vm]]) });
  const codes = (): readonly string[] => lab.engine.status()[0]!.health.findings.map(({ code }) => code);
  await lab.pass(MINUTE);
  expect(codes()).toEqual([]);
  vm.retention = '/mnt/r cannot be written';
  await lab.pass(16 * MINUTE);
  expect(lab.engine.status()[0]!.health.findings).toMatchObject([
    { code: 'RETENTION_UNFIT', severity: 'warning', cause: expect.stringContaining('/mnt/r cannot be written') },
  ]);
  vm.retention = undefined;
  await lab.clock.run(lab.engine.apply(configOf('- name: vm\n    every: 5min\n    failback: { retention: /mnt/s }')));
  await lab.pass(5 * MINUTE);
  expect(codes()).toEqual([]);
  await lab.stop();
});
