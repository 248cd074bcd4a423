/** Further stores of a machine, over a virtual clock: each follows the one before it, and one that is down delays nobody. */
import { expect, test } from 'vitest';
import { type AgentEvent, type EngineConfig, loadConfig } from '../../../src/agent/daemon/index.ts';
import type { MirrorReport } from '../../../src/agent/types.ts';
import { BlockferryError } from '../../../src/errors.ts';
import { type EngineLab, engineLab, HOUR, MINUTE, NOON, scripted } from './engine-lab.ts';

const URLS = ['file:///first', 'file:///second', 'file:///third'] as const;

const configOf = (stores: readonly string[]): EngineConfig =>
  loadConfig(
    `time-zone: UTC\nmachines:\n  - name: web\n    disks: [web.raw]\n    to: [${stores.join(', ')}]\n    every: 5min\n`,
    '/lab/agent.yaml',
  );

interface Line extends EngineLab {
  /** Stores that are down. */
  readonly down: Set<string>;
  /** What was tried: when, from, to. */
  readonly tries: (readonly [number, string, string])[];
}

function reportOf(from: string, to: string, pointTimeMs: number, isNew: boolean): MirrorReport {
  const counts = {
    logs: 1,
    logBytes: 5,
    chunksCopied: 0,
    chunksCleared: 0,
    fetchedBytes: 0,
    sentBytes: 0,
    appliedLogs: 0,
  };
  const place = { item: 'web', from, to, generation: 1, pointId: 'p', pointTimeMs };
  return { ...place, ...counts, by: isNew ? 'logs' : 'nothing', points: isNew ? 1 : 0, elapsedMs: 10_000 };
}

/** Each carry takes ten seconds and brings what the store before has. */
function begin(stores: readonly string[] = URLS): Line {
  const down = new Set<string>();
  const tries: (readonly [number, string, string])[] = [];
  const newest = new Map<string, number>();
  const lab: EngineLab = engineLab(configOf(stores), {
    machines: new Map([['web', scripted()]]),
    follow: (clock) => (machine, from, to) => ({
      look: async () => newest.get(to),
      mirror: async ({ signal }): Promise<MirrorReport> => {
        tries.push([clock.nowMs() - NOON, from, to]);
        await clock.sleep(10_000, signal);
        if (down.has(to)) throw new BlockferryError('STORE_UNREACHABLE', `${to} does not answer`);
        const first = lab.engine.status()[0]!.newestPointMs!;
        const has = from === machine.url ? first : (newest.get(from) ?? 0);
        const isNew = newest.get(to) !== has;
        newest.set(to, has);
        return reportOf(from, to, has, isNew);
      },
    }),
  });
  return { ...lab, down, tries };
}

const of = (lab: Line, type: AgentEvent['type']): readonly AgentEvent[] =>
  lab.events.filter((event) => event.type === type);
const finding = (lab: Line) => lab.engine.status()[0]!.health.findings.find(({ code }) => code === 'STORE_BEHIND');

test('what the machine ships goes from store to store at once', async () => {
  const lab = begin();
  await lab.pass(HOUR - 1);
  expect(lab.of('web', 'ship')).toHaveLength(12);
  expect(lab.tries.filter(([, , to]) => to === URLS[1]).length).toBeGreaterThanOrEqual(12);
  expect(lab.tries.every(([, from, to]) => URLS.indexOf(to as never) === URLS.indexOf(from as never) + 1)).toBe(true);
  const { also, newestPointMs } = lab.engine.status()[0]!;
  expect(also).toEqual(URLS.slice(1).map((url) => ({ url, running: false, newestPointMs, behindMs: 0 })));
  expect(of(lab, 'store-carried').length).toBeGreaterThanOrEqual(24);
  expect(finding(lab)).toBeUndefined();
  await lab.stop();
});

test('a store that is down delays neither the machine nor another store, is told, and catches up when it is back', async () => {
  const lab = begin([...URLS]);
  await lab.pass(10 * MINUTE);
  lab.down.add(URLS[1]);
  await lab.pass(HOUR - 10 * MINUTE - 1);
  expect(lab.of('web', 'ship')).toHaveLength(12);
  expect(lab.engine.status()[0]!.totals).toMatchObject({ done: 12, missed: 0, failed: 0 });
  const failed = of(lab, 'store-failed').map(({ timeMs }) => Math.floor((timeMs - NOON) / MINUTE) - 10);
  // 1, 2, 4, 8 and 10 minutes after the first attempt, then every half hour.
  expect(failed).toEqual([0, 1, 2, 4, 8, 10, 40]);
  expect(finding(lab)).toMatchObject({
    severity: 'warning',
    cause: expect.stringMatching(/second is behind .* 50 min.* does not answer/),
  });
  expect(lab.engine.status()[0]!.also![0]!.trouble).toMatchObject({ code: 'STORE_UNREACHABLE', count: 7 });
  lab.down.clear();
  await lab.pass(35 * MINUTE);
  expect(lab.engine.status()[0]!.also).toMatchObject([{ behindMs: 0 }, { behindMs: 0 }]);
  expect(finding(lab)).toBeUndefined();
  await lab.stop();
});

test('an operator who asks to try again means further stores as well', async () => {
  const lab = begin(URLS.slice(0, 2));
  await lab.pass(10 * MINUTE);
  lab.down.add(URLS[1]);
  await lab.pass(45 * MINUTE);
  lab.down.clear();
  const tries = lab.tries.length;
  await lab.engine.retry('web');
  await lab.pass(MINUTE);
  expect(lab.tries.length).toBeGreaterThan(tries);
  expect(lab.engine.status()[0]!.also![0]!.trouble).toBeUndefined();
  await lab.stop();
});

test('a store that was down from the start is told as well, and a reload tries it again at once', async () => {
  const lab = begin(URLS.slice(0, 2));
  lab.down.add(URLS[1]);
  await lab.pass(40 * MINUTE);
  expect(finding(lab)?.cause).toMatch(/second has had nothing for/);
  lab.down.clear();
  const tries = lab.tries.length;
  await lab.engine.apply(configOf(URLS.slice(0, 2)));
  await lab.pass(MINUTE);
  expect(lab.tries.length).toBeGreaterThan(tries);
  expect(lab.engine.status()[0]!.also).toMatchObject([{ behindMs: 0 }]);
  await lab.stop();
});

test('a store that is added begins at once, and one that is taken out is left alone', async () => {
  const lab = begin(URLS.slice(0, 1));
  await lab.pass(12 * MINUTE);
  expect(lab.tries).toEqual([]);
  await lab.engine.apply(configOf(URLS));
  await lab.pass(MINUTE);
  expect(lab.engine.status()[0]!.also).toMatchObject([{ behindMs: 0 }, { behindMs: 0 }]);
  await lab.engine.apply(configOf(URLS.slice(0, 1)));
  const tries = lab.tries.length;
  await lab.pass(HOUR);
  expect(lab.tries).toHaveLength(tries);
  expect(lab.engine.status()[0]!.also).toBeUndefined();
  await lab.stop();
});

test('nothing is carried before the first copy has ended', async () => {
  const lab = begin();
  lab.machines.get('web')!.isProtected = false;
  lab.machines.get('web')!.tookMs.protect = HOUR;
  await lab.pass(30 * MINUTE);
  expect(lab.tries).toEqual([]);
  await lab.pass(40 * MINUTE);
  expect(lab.engine.status()[0]!.also).toMatchObject([{ behindMs: 0 }, { behindMs: 0 }]);
  await lab.stop();
});

test.each([
  ['the same store twice', '[file:///a, file:///a]', /twice/],
  ['too many', `[${Array.from({ length: 9 }, (_, i) => `file:///s${i}`).join(', ')}]`, /at most 8/],
  ['one that is none', '[file:///a, nowhere]', /nowhere/],
])('%s are no stores of a machine', (_, to, message) => {
  expect(() => loadConfig(`machines: [{ name: web, disks: [a], to: ${to} }]`, '/a.yaml')).toThrow(message);
});

test('no more stores are carried to at a time than machines work; copies leave a place, and no machine is delayed', async () => {
  const names = ['a', 'b', 'c', 'd'];
  const machines = names.map(
    (name) => `{ name: ${name}, disks: [${name}.raw], to: ["file:///${name}", "file:///x/${name}"] }`,
  );
  const has = new Set(['c', 'd']);
  let [now, most] = [0, 0];
  const done: string[] = [];
  const text = `time-zone: UTC\nat-once: 2\nmachines: [${machines.join(', ')}]\n`;
  const lab = engineLab(loadConfig(text, '/lab/agent.yaml'), {
    follow: (clock) => (machine, from, to) => ({
      look: async () => (has.has(machine.name) ? NOON : undefined),
      mirror: async ({ signal }): Promise<MirrorReport> => {
        now += 1;
        most = Math.max(most, now);
        // A copy takes hours.
        await clock.sleep(has.has(machine.name) ? 10_000 : 4 * HOUR, signal).finally(() => {
          now -= 1;
        });
        has.add(machine.name);
        done.push(machine.name);
        return reportOf(from, to, clock.nowMs(), true);
      },
    }),
  });
  await lab.pass(HOUR - 1);
  for (const name of names) expect(lab.of(name, 'ship'), name).toHaveLength(12);
  expect(most).toBe(2);
  // That of `b` waits for that of `a`.
  for (const name of ['c', 'd']) expect(done.filter((each) => each === name).length).toBeGreaterThanOrEqual(12);
  await lab.pass(8 * HOUR);
  expect(done.filter((each) => each === 'a').length).toBeGreaterThan(12);
  expect(done).toContain('b');
  await lab.stop();
  expect(now).toBe(0);
});
