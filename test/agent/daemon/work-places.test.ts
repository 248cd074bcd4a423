/** How many machines work at once: never more, in the order in which they came, and no copy keeps a cycle waiting for hours. */
import { expect, test } from 'vitest';
import type { AgentVerb } from '../../../src/agent/daemon/index.ts';
import { WorkPlaces } from '../../../src/agent/daemon/work-places.ts';
import { configOf, type EngineLab, engineLab, HOUR, MINUTE, type ScriptedMachine, scripted } from './engine-lab.ts';

const NAMES = ['a', 'b', 'c', 'd', 'e'];

function begin(change: Partial<ScriptedMachine>, atOnce: number, more = ''): EngineLab {
  const machines = new Map(NAMES.map((name) => [name, scripted(structuredClone(change))]));
  const list = NAMES.map((name) => `- name: ${name}`).join('\n');
  return engineLab(configOf(list, `at-once: ${atOnce}\n${more}`), { machines });
}

/** Of each moment at which one begins, how many of these verbs run. */
function mostAtOnce(lab: EngineLab, verbs: readonly AgentVerb[]): number {
  let running = 0;
  let most = 0;
  for (const event of lab.events) {
    if (!('verb' in event) || !verbs.includes(event.verb as AgentVerb)) continue;
    running += event.type === 'operation-started' ? 1 : -1;
    most = Math.max(most, running);
  }
  return most;
}

test('no more work at a time, whoever is due first comes first, and all come', async () => {
  const lab = begin({ tookMs: { ship: MINUTE } }, 2);
  await lab.pass(20 * MINUTE - 1);
  expect(mostAtOnce(lab, ['ship', 'apply'])).toBe(2);
  const order = lab.calls.filter(({ verb }) => verb === 'ship').map(({ machine }) => machine);
  expect(order.slice(0, 10)).toEqual([...NAMES, ...NAMES]);
  for (const name of NAMES) expect(lab.of(name, 'ship').length, name).toBe(4);
  await lab.stop();
});

test('copies of hours leave a place to the cycles', async () => {
  const lab = begin({}, 3);
  for (const name of ['a', 'b', 'c']) {
    Object.assign(lab.machines.get(name)!, { isProtected: false, tookMs: { protect: 10 * HOUR } });
  }
  await lab.pass(HOUR - 1);
  expect(mostAtOnce(lab, ['protect'])).toBe(2);
  for (const name of ['d', 'e']) expect(lab.of(name, 'ship').length, name).toBe(12);
  // Whose copy waits is not said to be copying.
  expect(lab.engine.status().filter(({ running }) => running === 'protect').length).toBe(2);
  await lab.stop();
});

test('cycles that wait go before copies that wait', async () => {
  const places = new WorkPlaces(2);
  const { signal } = new AbortController();
  const order: string[] = [];
  const [one, two] = [await places.take('cycle', signal), await places.take('cycle', signal)];
  const waiting = (['copy', 'cycle', 'copy', 'cycle'] as const).map(async (kind) => {
    const leave = await places.take(kind, signal);
    order.push(kind);
    leave();
  });
  one();
  two();
  await Promise.all(waiting);
  expect(order).toEqual(['cycle', 'cycle', 'copy', 'copy']);
});

test('who is stopped while it waits leaves its place in the row, and what was taken comes back once only', async () => {
  const places = new WorkPlaces(2);
  const stop = new AbortController();
  const never = new AbortController().signal;
  const leave = [await places.take('cycle', never), await places.take('cycle', never)];
  const stopped = places.take('cycle', stop.signal);
  const behind = places.take('cycle', never);
  stop.abort();
  await expect(stopped).rejects.toMatchObject({ code: 'ABORTED' });
  leave[0]!();
  leave[0]!();
  const third = places.take('cycle', never);
  await behind;
  expect(
    await Promise.race([third.then(() => 'given'), new Promise((resolve) => setImmediate(resolve, 'waits'))]),
  ).toBe('waits');
  places.set(3);
  await third;
});

test('a machine that is paused while it waits does not begin, and a new number holds from then on', async () => {
  const lab = begin({ tookMs: { ship: HOUR } }, 2);
  await lab.pass(MINUTE);
  expect(lab.engine.status().filter(({ running }) => running === 'ship').length).toBe(2);
  await lab.engine.machine('c').pause();
  await lab.pass(2 * HOUR);
  expect(lab.of('c', 'ship')).toEqual([]);
  const list = NAMES.map((name) => `- name: ${name}`).join('\n');
  await lab.clock.run(lab.engine.apply(configOf(list, 'at-once: 5')));
  await lab.pass(MINUTE);
  expect(lab.engine.status().filter(({ running }) => running === 'ship').length).toBe(4);
  await lab.stop();
});

test('a group is one that works, and what an operator asks for waits for nobody', async () => {
  const lab = begin({ tookMs: { ship: MINUTE } }, 3, 'groups: [{ name: g, machines: [a, b, c], every: 5min }]');
  await lab.pass(20_000);
  expect(lab.engine.status().filter(({ running }) => running === 'ship').length).toBe(5);
  const over = lab.engine.machine('e').operate('failover', async () => 'done', new AbortController().signal);
  await lab.pass(31_000);
  expect(await over).toBe('done');
  await lab.stop();
});

test('but a group has a place as any other: where none is free, it waits for one', async () => {
  const lab = begin({ tookMs: { ship: MINUTE } }, 2, 'groups: [{ name: g, machines: [a, b], every: 1min }]');
  await lab.pass(10 * MINUTE);
  const busy = new Set<string>();
  const seen: string[] = [];
  for (const event of lab.events) {
    if (!('verb' in event) || event.verb !== 'ship') continue;
    const who = ['a', 'b'].includes(event.machine) ? 'g' : event.machine;
    if (event.type === 'operation-started') busy.add(who);
    else busy.delete(who);
    seen.push([...busy].toSorted().join(''));
  }
  expect(Math.max(...seen.map((each) => each.length))).toBe(2);
  expect(seen.some((each) => each.includes('g'))).toBe(true);
  await lab.stop();
});
