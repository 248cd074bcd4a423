/** What an operator asks of an agent, in the turn of the machine: what runs ends or is stopped, and the schedule stands still. */
import { expect, test } from 'vitest';
import { abortedError } from '../../../src/errors.ts';
import { configOf, type EngineLab, engineLab, HOUR, MINUTE, scripted } from './engine-lab.ts';

const NEVER = new AbortController().signal;

/** Asks for a failover that takes so long; tells when it began. */
function ask(
  lab: EngineLab,
  tookMs: number,
  signal = NEVER,
): { readonly begunMs: () => number | undefined; readonly over: Promise<string> } {
  let begunMs: number | undefined;
  const over = lab.engine.machine('vm').operate(
    'failover',
    async (context) => {
      begunMs = lab.clock.nowMs();
      await lab.clock.sleep(tookMs, context.signal);
      return 'done';
    },
    signal,
  );
  over.catch(() => {});
  return { begunMs: () => begunMs, over };
}

test('nothing else is done with the machine meanwhile, and it shows', async () => {
  const lab = engineLab(configOf('- name: vm\n    every: 5min\n- name: other\n    every: 5min'));
  await lab.pass(MINUTE);
  const { over } = ask(lab, HOUR);
  await lab.pass(30 * MINUTE);
  expect(lab.of('vm', 'ship').length).toBe(1);
  expect(lab.of('other', 'ship').length).toBe(7);
  expect(lab.engine.status()[0]).toMatchObject({ running: 'failover', share: { lanes: 32 } });
  await lab.pass(31 * MINUTE);
  expect(await over).toBe('done');
  await lab.pass(MINUTE);
  expect(lab.of('vm', 'ship').length).toBe(2);
  const told = lab.events.flatMap((event) => ('verb' in event && event.verb === 'failover' ? [event.type] : []));
  expect(told).toEqual(['operation-started', 'operation-ended']);
  await lab.stop();
});

test.each([
  ['a cycle may end for half a minute', 'ship', { tookMs: { ship: 20_000 } }, 20_000, 'operation-ended'],
  ['a cycle that goes on is stopped then', 'ship', { tookMs: { ship: HOUR } }, 30_000, 'operation-stopped'],
  ['a copy is stopped at once', 'protect', { isProtected: false, tookMs: { protect: HOUR } }, 0, 'operation-stopped'],
] as const)('%s', async (_name, verb, change, afterMs, became) => {
  const lab = engineLab(configOf('- name: vm\n    every: 2h'), { machines: new Map([['vm', scripted(change)]]) });
  await lab.pass(100);
  const askedMs = lab.clock.nowMs();
  expect(lab.engine.status()[0]?.running).toBe(verb);
  const { begunMs, over } = ask(lab, 1000);
  await lab.pass(2 * MINUTE);
  expect(await over).toBe('done');
  expect(Math.abs(begunMs()! - askedMs - afterMs)).toBeLessThan(1000);
  expect(
    lab.events.find((event) => 'verb' in event && event.verb === verb && event.type !== 'operation-started')?.type,
  ).toBe(became);
  await lab.stop();
});

test('two operators do not wait for each other, nor stop each other', async () => {
  const lab = engineLab(configOf('- name: vm\n    every: 5min'));
  await lab.pass(MINUTE);
  const first = ask(lab, 10 * MINUTE);
  await lab.pass(MINUTE);
  await expect(ask(lab, 1000).over).rejects.toMatchObject({
    code: 'ITEM_LOCKED',
    message: expect.stringContaining('failover of machine "vm"'),
  });
  await lab.pass(10 * MINUTE);
  expect(await first.over).toBe('done');
  expect(await lab.clock.run(ask(lab, 1000).over)).toBe('done');
  await lab.stop();
});

test('who asked may stop it, while it waits for the turn too; its failure is nobody’s to try again', async () => {
  const vm = scripted({ tookMs: { ship: 25_000 } });
  const lab = engineLab(configOf('- name: vm\n    every: 5min'), { machines: new Map([['vm', vm]]) });
  await lab.pass(100);
  const stop = new AbortController();
  const { begunMs, over } = ask(lab, HOUR, stop.signal);
  await lab.pass(1000);
  stop.abort();
  await expect(over).rejects.toMatchObject({ code: 'ABORTED' });
  expect(begunMs()).toBeUndefined();
  await lab.pass(MINUTE);
  const again = new AbortController();
  const running = ask(lab, HOUR, again.signal);
  await lab.pass(MINUTE);
  again.abort(abortedError(again.signal));
  await expect(running.over).rejects.toThrow();
  await lab.pass(5 * MINUTE);
  expect(lab.engine.status()[0]?.failure).toBeUndefined();
  expect(lab.of('vm', 'ship').length).toBe(2);
  expect(lab.events.filter(({ type }) => type === 'operation-stopped').length).toBe(1);
  await lab.stop();
});

test('what waited for a person is tried again once an operator’s verb has ended well', async () => {
  const vm = scripted({ fails: { ship: 'KEY_WRONG' } });
  const lab = engineLab(configOf('- name: vm\n    every: 5min'), { machines: new Map([['vm', vm]]) });
  await lab.pass(HOUR);
  expect(lab.of('vm', 'ship').length).toBe(1);
  delete vm.fails.ship;
  await lab.clock.run(ask(lab, 1000).over);
  await lab.pass(5 * MINUTE);
  expect(lab.of('vm', 'ship').length).toBeGreaterThan(1);
  expect(lab.engine.status()[0]?.failure).toBeUndefined();
  await lab.stop();
});

test('a group waits for none of it: its other members ship by themselves until it is over', async () => {
  const lab = engineLab(configOf('- name: vm\n- name: db', 'groups: [{ name: g, machines: [vm, db], every: 5min }]'));
  await lab.pass(MINUTE);
  const { over } = ask(lab, HOUR);
  await lab.pass(HOUR - MINUTE);
  expect(lab.of('db', 'ship').length).toBeGreaterThan(8);
  expect(lab.engine.groups()).toMatchObject([{ isApart: true, trouble: { message: 'vm: failover is under way' } }]);
  await lab.pass(40 * MINUTE);
  expect(await over).toBe('done');
  expect(lab.engine.groups()).toMatchObject([{ isApart: false }]);
  await lab.stop();
});
