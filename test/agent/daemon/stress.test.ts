/**
 * Machines, a group and further stores under whatever operators, stores and new configurations do to them, by dice on a virtual clock:
 * nobody waits for somebody who waits for them. Once all is well everybody ships at its interval, exactly once.
 */
import { expect, test } from 'vitest';
import { type EngineConfig, loadConfig } from '../../../src/agent/daemon/index.ts';
import type { MirrorReport } from '../../../src/agent/types.ts';
import { BlockferryError, type ErrorCode } from '../../../src/errors.ts';
import { Dice } from '../../support/dice.ts';
import { type EngineLab, engineLab, HOUR, MINUTE, NOON, type ScriptedMachine, scripted } from './engine-lab.ts';

const NAMES = ['a', 'b', 'c', 'd', 'e'] as const;
const STEPS = 100;

/** Some of the machines, some of them with a second store, some in a group. */
function someConfig(dice: Dice): EngineConfig {
  const names = NAMES.filter((name) => name === 'a' || !dice.oneIn(4));
  const machines = names.map((name) => {
    const also = dice.oneIn(2) ? `, "file:///also/${name}"` : '';
    return `{ name: ${name}, disks: [${name}.raw], to: ["file:///${name}"${also}] }`;
  });
  const members = names.slice(0, dice.between(2, names.length));
  const isGroup = names.length >= 2 && !dice.oneIn(3);
  const group = isGroup ? `groups: [{ name: g, machines: [${members.join(', ')}], every: 5min }]\n` : '';
  const text = `time-zone: UTC\nat-once: ${dice.between(2, 4)}\n${group}machines: [${machines.join(', ')}]\n`;
  return loadConfig(text, '/lab/agent.yaml');
}

/** Carrying takes long or fails now and then; a store is never carried to twice at a time. */
function following(dice: Dice): NonNullable<Parameters<typeof engineLab>[1]>['follow'] {
  const running = new Set<string>();
  const counts = { logs: 1, logBytes: 1, chunksCopied: 0, chunksCleared: 0, fetchedBytes: 0, sentBytes: 0 };
  return (clock) => (machine, from, to) => ({
    look: async () => (dice.oneIn(5) ? undefined : NOON),
    mirror: async ({ signal }): Promise<MirrorReport> => {
      if (running.has(to)) throw new Error(`two carry to ${to}`);
      running.add(to);
      await clock.sleep(dice.oneIn(4) ? 20 * MINUTE : 10_000, signal).finally(() => running.delete(to));
      if (dice.oneIn(6)) throw new BlockferryError('STORE_UNREACHABLE', 'it is down');
      const place = { item: machine.name, from, to, generation: 1, pointId: 'p', pointTimeMs: clock.nowMs() };
      return { ...place, ...counts, by: 'logs', points: 1, appliedLogs: 0, elapsedMs: 1 };
    },
  });
}

/** What an operator does, who may change their mind. A refusal is an answer. */
async function operate(lab: EngineLab, dice: Dice, name: string): Promise<void> {
  const machine = lab.engine.machine(name);
  const stop = new AbortController();
  const tookMs = dice.below(20) * MINUTE;
  const asked = [
    () => machine.pause(),
    () => machine.resume(),
    () => machine.retry(),
    () => machine.resync(),
    () => machine.operate('failover', ({ signal }) => lab.clock.sleep(tookMs, signal), stop.signal),
  ];
  if (dice.oneIn(3)) void lab.clock.sleep(dice.below(10) * MINUTE).then(() => stop.abort());
  try {
    await dice.pick(asked)();
  } catch (error) {
    if (!(error instanceof BlockferryError)) throw error;
  }
}

/** What befalls a machine, or ends. */
function befall(machine: ScriptedMachine, dice: Dice): void {
  const code = dice.pick<ErrorCode | undefined>([undefined, 'STORE_UNREACHABLE']);
  Object.assign(machine, {
    tookMs: {
      observe: dice.pick([1, 1, 10 * MINUTE]),
      ship: dice.pick([1, 1000, 7 * MINUTE]),
      apply: dice.pick([1, 30 * MINUTE]),
    },
    fails: code ? { ship: code } : {},
    needsResync: dice.oneIn(4),
    outstandingLogs: dice.pick([0, 40]),
  });
}

test.each([1, 2, 3, 4])('nobody is stuck, walk %i', async (seed) => {
  const dice = new Dice(seed);
  const machines = new Map(NAMES.map((name) => [name as string, scripted()]));
  let config = someConfig(dice);
  const follow = following(dice)!;
  const lab = engineLab(config, { machines, follow });
  const asked: Promise<void>[] = [];
  for (let step = 0; step < STEPS; step += 1) {
    const name = dice.pick(NAMES);
    if (dice.oneIn(10)) {
      config = someConfig(dice);
      await lab.clock.run(lab.engine.apply(config));
    } else if (dice.oneIn(2)) befall(machines.get(name)!, dice);
    else if (lab.engine.find(name)) asked.push(operate(lab, dice, name));
    await lab.pass(dice.pick([1000, MINUTE, 5 * MINUTE, 30 * MINUTE]));
  }
  for (const machine of machines.values()) Object.assign(machine, scripted());
  for (const { name } of config.machines) await lab.clock.run(lab.engine.machine(name).resume());
  await lab.pass(90 * MINUTE);
  const fromMs = lab.clock.nowMs();
  await lab.pass(HOUR);
  for (const { name } of config.machines) {
    const cycles = lab.calls.filter(({ verb, atMs, machine }) => {
      const isIts = machine === name || (machine.startsWith('group:') && machine.slice(6).split('+').includes(name));
      return verb === 'ship' && atMs >= fromMs && isIts;
    });
    expect(Math.abs(cycles.length - 12), name).toBeLessThanOrEqual(1);
  }
  const broken = lab.events.filter((event) => 'message' in event && event.message.includes('its loop broke'));
  expect(broken).toEqual([]);
  await lab.stop();
  await lab.clock.run(Promise.all(asked));
});
