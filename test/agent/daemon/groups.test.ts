/** Machines that ship together, over a virtual clock: one moment for all, and no machine that loses its points for another. */
import { describe, expect, test } from 'vitest';
import { loadConfig } from '../../../src/agent/daemon/index.ts';
import { isBlockferryError } from '../../../src/errors.ts';
import {
  configOf,
  type EngineLab,
  engineLab,
  HOUR,
  MINUTE,
  NOON,
  type ScriptedMachine,
  scripted,
} from './engine-lab.ts';

const GROUP = 'groups: [{ name: shop, machines: [web, db], every: 15min }]';
const MACHINES = '- name: web\n- name: db\n- name: other\n    every: 5min';

function begin(more: Readonly<Record<string, Partial<ScriptedMachine>>> = {}, group = GROUP): EngineLab {
  const machines = new Map(Object.entries(more).map(([name, change]) => [name, scripted(change)]));
  for (const name of ['web', 'db', 'other']) if (!machines.has(name)) machines.set(name, scripted());
  return engineLab(configOf(MACHINES, group), { machines });
}

const minutes = (calls: readonly { readonly atMs: number }[]): readonly number[] =>
  calls.map(({ atMs }) => Math.round((atMs - NOON) / MINUTE));
const together = (lab: EngineLab): readonly number[] => minutes(lab.of('group:web+db'));
const codesOf = (lab: EngineLab, name: string): readonly string[] =>
  lab.engine
    .status()
    .find((machine) => machine.name === name)!
    .health.findings.map(({ code }) => code);

test('the members of a group ship together on its schedule, none of them alone, and others go on as ever', async () => {
  const lab = begin();
  await lab.pass(HOUR - 1);
  expect(together(lab)).toEqual([0, 15, 30, 45]);
  for (const name of ['web', 'db']) expect(lab.of(name, 'ship')).toEqual([]);
  expect(lab.of('other', 'ship').length).toBe(12);
  const [web, db] = lab.engine.status();
  for (const machine of [web, db]) {
    expect(machine).toMatchObject({ group: 'shop', totals: { done: 4, missed: 0, failed: 0 } });
    expect(machine?.health.level).toBe('normal');
  }
  expect(lab.events.filter(({ type }) => type === 'group-shipped').length).toBe(4);
  // Each was folded and thinned in its turn, right behind a cycle.
  expect(minutes(lab.of('db', 'apply'))).toEqual([0]);
  await lab.stop();
});

test('app-consistent points are those of the group', async () => {
  const lab = begin({}, 'groups: [{ name: shop, machines: [web, db], every: 15min, app-consistent: { every: 1h } }]');
  await lab.pass(2 * HOUR - 1);
  const made = lab.of('group:web+db').map(({ consistency }) => consistency);
  expect(made).toEqual(['app', 'crash', 'crash', 'crash', 'app', 'crash', 'crash', 'crash']);
  await lab.stop();
});

describe('a member that cannot', () => {
  const reasons: readonly (readonly [string, Partial<ScriptedMachine>, RegExp])[] = [
    ['needs a resync', { needsResync: true }, /db: a resync is required: logs are half/],
    ['has no first copy', { isProtected: false, tookMs: { protect: 48 * HOUR } }, /db: protect is under way/],
    ['fails to ship', { fails: { ship: 'STORE_TIMEOUT' } }, /db: as the test says/],
    ['cannot be looked at', { fails: { observe: 'KEY_WRONG' } }, /db: observe failed/],
  ];
  test.each(reasons)(
    'because it %s leaves the others three tries, then they ship by themselves',
    async (_name, change, why) => {
      const lab = begin({ db: change });
      await lab.pass(HOUR - 1);
      const web = minutes(lab.of('web', 'ship'));
      expect(web[0]).toBeGreaterThanOrEqual(2);
      expect(web[0]).toBeLessThanOrEqual(5);
      expect(web.length).toBeGreaterThanOrEqual(4);
      for (const name of ['web', 'db']) expect(codesOf(lab, name), name).toContain('GROUP_APART');
      const finding = lab.engine.status()[0]!.health.findings.find(({ code }) => code === 'GROUP_APART');
      expect(finding).toMatchObject({ severity: 'warning', cause: expect.stringMatching(why) });
      expect(codesOf(lab, 'other')).toEqual([]);
      expect(lab.engine.groups()).toMatchObject([
        { name: 'shop', isApart: true, trouble: { message: expect.stringMatching(why) } },
      ]);
      await lab.stop();
    },
  );

  test('is waited for on the ladder of retries, and with its first success all ship together again', async () => {
    const lab = begin({ db: { fails: { ship: 'STORE_UNREACHABLE' } } });
    await lab.pass(71 * MINUTE);
    expect(together(lab).slice(0, 6)).toEqual([0, 1, 2, 4, 8, 10]);
    delete lab.machines.get('db')!.fails.ship;
    await lab.pass(30 * MINUTE);
    const before = lab.of('web', 'ship').length;
    expect(codesOf(lab, 'web')).toEqual([]);
    await lab.pass(2 * HOUR);
    expect(lab.of('web', 'ship').length).toBe(before);
    expect(lab.engine.groups()).toMatchObject([{ isApart: false, lastMomentMs: expect.any(Number) }]);
    await lab.stop();
  });

  test('may be paused: who resumes it has a common moment at once', async () => {
    const lab = begin();
    await lab.pass(MINUTE);
    await lab.engine.machine('db').pause();
    await lab.pass(40 * MINUTE);
    expect(together(lab)).toEqual([0]);
    expect(lab.of('db', 'ship')).toEqual([]);
    expect(lab.of('web', 'ship').length).toBeGreaterThan(0);
    expect(lab.engine.status()[0]!.health.findings[0]!.cause).toContain('db: an operator paused it');
    await lab.engine.machine('db').resume();
    await lab.pass(1000);
    expect(together(lab)).toEqual([0, 41]);
    await lab.stop();
  });

  test('joins it as soon as it can, wherever the ladder is', async () => {
    const lab = begin({ db: { isProtected: false, tookMs: { protect: 37 * MINUTE } } });
    await lab.pass(38 * MINUTE);
    expect(together(lab)).toEqual([37]);
    await lab.stop();
  });

  test('holds up its group for a minute at most while it does something else', async () => {
    const lab = begin({ db: { outstandingLogs: 32, tookMs: { apply: 90 * MINUTE } } });
    await lab.pass(HOUR - 1);
    expect(minutes(lab.of('web', 'ship')).length).toBeGreaterThanOrEqual(2);
    expect(lab.engine.groups()[0]!.trouble!.message).toMatch(/^db: apply is under way/);
    await lab.stop();
  });
});

test('a member that is seen to copy for hours is not waited for: its group fails at once', async () => {
  const lab = begin({ db: { isProtected: false, tookMs: { protect: 48 * HOUR } } });
  await lab.pass(2 * MINUTE + 1);
  const failed = lab.events.flatMap((event) => (event.type === 'group-failed' ? [event] : []));
  // Only the first one waits: both begin at the same time.
  expect(failed.map(({ timeMs }) => Math.round((timeMs - NOON) / MINUTE))).toEqual([1, 2]);
  expect(failed[1]).toMatchObject({ message: 'db: protect is under way' });
  await lab.stop();
});

test('a member whose store hangs holds up its group for a minute at most', async () => {
  const lab = begin();
  await lab.pass(MINUTE);
  lab.machines.get('db')!.tookMs.observe = 20 * MINUTE;
  await lab.pass(HOUR);
  const shipped = [...lab.of('web', 'ship'), ...lab.calls.filter(({ machine }) => machine.startsWith('group:'))];
  const atMs = shipped.map((call) => call.atMs).sort((a, b) => a - b);
  const gaps = atMs.slice(1).map((ms, i) => (ms - atMs[i]!) / MINUTE);
  // A quarter of an hour, and three attempts.
  expect(Math.max(...gaps)).toBeLessThan(21);
  expect(atMs.length).toBeGreaterThan(3);
  expect(lab.engine.groups()[0]!.trouble!.message).toMatch(/^db: (looking at it did not end|observe is under way)/);
  await lab.stop();
});

test('a pause in the midst of a common cycle ends it for all, at its next safe place', async () => {
  const lab = begin({ db: { tookMs: { ship: HOUR } } });
  await lab.pass(5 * MINUTE);
  expect(lab.engine.status().map(({ running }) => running)).toEqual(['ship', 'ship', undefined]);
  await lab.engine.machine('web').pause();
  await lab.pass(1000);
  expect(lab.engine.status()[1]?.running).toBeUndefined();
  expect(lab.events).toContainEqual(
    expect.objectContaining({ type: 'operation-stopped', machine: 'db', verb: 'ship' }),
  );
  await lab.stop();
});

test('groups come, change and go with the configuration', async () => {
  const lab = begin();
  await lab.pass(MINUTE);
  await lab.clock.run(lab.engine.apply(configOf(MACHINES)));
  await lab.pass(10 * MINUTE);
  expect(lab.engine.groups()).toEqual([]);
  expect(lab.of('web', 'ship').length).toBeGreaterThan(0);
  await lab.clock.run(lab.engine.apply(configOf(MACHINES, GROUP)));
  const alone = lab.of('web', 'ship').length;
  await lab.pass(16 * MINUTE);
  expect(lab.of('web', 'ship').length).toBe(alone);
  expect(together(lab).length).toBeGreaterThanOrEqual(2);
  await lab.stop();
});

test('after a restart the group goes on at the interval of its last cycle', async () => {
  const lab = begin();
  await lab.pass(20 * MINUTE);
  const again = engineLab(configOf(MACHINES, GROUP), { saved: new Map(lab.saved), startMs: lab.clock.nowMs() });
  await again.pass(20 * MINUTE);
  expect(together(again)).toEqual([30]);
  await lab.stop();
  await again.stop();
});

describe('the configuration of groups', () => {
  const faultsOf = (groups: string): string => {
    const machines = ['web', 'db', 'other'].map((name) => `  - { name: ${name}, disks: [d], to: "file:///x" }`);
    try {
      loadConfig(`${groups}\nmachines:\n${machines.join('\n')}\n`, 'agent.yaml');
    } catch (error) {
      if (isBlockferryError(error, 'CONFIG_INVALID')) return error.message;
      throw error;
    }
    return '';
  };

  test.each([
    ['groups: [{ machines: [web, db] }]', '1:10: "groups" lacks "name"'],
    ['groups: [{ name: g, machines: [web] }]', '"machines" names 1 machines; a group has 2 to 16'],
    ['groups: [{ name: g, machines: [web, nobody] }]', '"machines" names "nobody", which is no machine of this file'],
    ['groups: [{ name: g, machines: [web, db, db] }]', '"machines" names "db" twice'],
    ['groups: [{ name: g, machines: [web, db] }, { name: h, machines: [db, other] }]', 'is in group "g" already'],
    ['groups: [{ name: g, machines: [web, db] }, { name: g, machines: [other, x] }]', '"name" is "g" again'],
    ['groups: [{ name: g, machines: [web, db], every: 0s }]', '"every" is wrong'],
  ])('%s is refused', (text, fault) => {
    expect(faultsOf(text)).toContain(fault);
  });

  test('a machine of a group has no schedule of its own, whatever the defaults say', () => {
    const text = (own: string): string =>
      `defaults: { every: 30s, app-consistent: { every: 1h } }\ngroups: [{ name: g, machines: [web, db], every: 10min }]\nmachines:\n  - { name: web, disks: [d], to: "file:///x"${own} }\n  - { name: db, disks: [d], to: "file:///y" }\n`;
    const [web] = loadConfig(text(''), 'agent.yaml').machines;
    expect(web).toMatchObject({ group: 'g', everyMs: 10 * MINUTE, rpoThresholdMs: 30 * MINUTE });
    expect(web).not.toHaveProperty('appConsistent');
    expect(() => loadConfig(text(', every: 5min'), 'agent.yaml')).toThrow(
      /"every" is what group "g" says; leave it out/,
    );
  });
});
