/** A race: who fails is told and is out, the others run their rounds, and nobody's leavings stay. */
import { expect, it } from 'vitest';
import type { Lab } from '../../bench/lab.ts';
import { type Contestant, race } from '../../bench/race.ts';
import type { Bare } from '../../bench/record.ts';

it('goes on without a contestant that fails, which is told once and cleans up', async () => {
  const records: Bare[] = [];
  const lab = { rounds: 3, report: (record: Bare) => records.push(record) } as unknown as Lab;
  const cleaned: string[] = [];
  let tries = 0;
  const contestant = (name: string, run: Contestant['run']): Contestant => ({
    name,
    command: name,
    run,
    clean: async () => void cleaned.push(name),
  });
  const cost = { wallMs: 1, cpuMs: 1, peakMib: 1 };
  await race(lab, { bench: 'sync', task: 'first copy', input: 'bytes' }, [
    contestant('fails', async () => {
      tries += 1;
      if (tries === 2) throw new Error('no\nspace');
      return cost;
    }),
    contestant('runs', async () => cost),
  ]);
  const told = records.map((record) => ('contestant' in record ? `${record.contestant}: ${record.type}` : record.type));
  expect(told).toEqual(['fails: run', 'runs: run', 'fails: failed', 'runs: run', 'runs: run']);
  expect(records.find(({ type }) => type === 'failed')).toMatchObject({ task: 'first copy', reason: 'no space' });
  expect(cleaned).toEqual(['fails', 'runs', 'fails', 'runs', 'runs']);
});
