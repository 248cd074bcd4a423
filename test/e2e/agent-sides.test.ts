/** A machine that an agent has goes to other disks and comes home, asked for through its socket: the schedule stands still meanwhile. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { connectAgent, type ItemEvent } from '../../src/index.ts';
import { type RunResult, records, runCli } from '../cli/support.ts';
import { type RunningAgent, startAgentProcess } from '../support/agent.ts';

const MIB = 2 ** 20;

let directory: string;
let config: string;
let agent: RunningAgent | undefined;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'bf-agent-sides-'));
  config = join(directory, 'agent.yaml');
});
afterEach(async () => {
  if (agent?.child.exitCode === null) await agent.end('SIGKILL');
  agent = undefined;
  await rm(directory, { recursive: true, force: true });
});

const ask = (...args: readonly string[]): Promise<RunResult> =>
  runCli(['agent', ...args, '--config', config, '--json']);

async function done(...args: readonly string[]): Promise<Readonly<Record<string, unknown>>> {
  const result = await ask(...args);
  expect(result.code, `${args.join(' ')}: ${result.stderr}`).toBe(0);
  return records(result).at(-1)!;
}

/** The machine `vm`, on these disks, a cycle a second. */
async function configure(disk: string): Promise<void> {
  const machine = `{ name: vm, disks: ["${disk}"], to: "file://${directory}/store", every: 1s, low-space: tell }`;
  await writeFile(config, `home: home\nmachines:\n  - ${machine}\n`);
}

async function begin(): Promise<RunningAgent> {
  await writeFile(join(directory, 'vm.raw'), Buffer.concat([randomBytes(4 * MIB), Buffer.alloc(4 * MIB)]));
  await configure('vm.raw');
  agent = await startAgentProcess(config);
  await agent.untilDone('vm', 'ship');
  return agent;
}

test('planned to new disks, then home: each step is refused or done in the words of the state', async () => {
  const running = await begin();
  const out = join(directory, 'new');
  const cycles = (): number =>
    running.events.filter((event) => event.type === 'operation-ended' && event.verb === 'ship').length;
  expect(await ask('commit', 'vm')).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('nothing waits for commit'),
  });

  // Of a pause only the agent knows: nothing of the verb is begun.
  await done('pause', 'vm');
  expect(await ask('failover', 'vm', '--planned')).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('blockferry agent resume vm'),
  });
  await done('resume', 'vm');

  expect(await done('failover', 'vm', '--planned', '--out', out, '--format', 'raw')).toMatchObject({
    type: 'failover',
    proof: { item: 'vm' },
  });
  expect((await readFile(join(out, 'vm.raw'))).equals(await readFile(join(directory, 'vm.raw')))).toBe(true);
  const before = cycles();
  expect(await ask('reverse', 'vm')).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('end what waits first'),
  });
  // Over a second and two cycles: nothing is shipped while it waits for a person.
  await new Promise((resolve) => setTimeout(resolve, 2500));
  expect(cycles()).toBe(before);
  expect((await done('status'))['machines']).toMatchObject([{ state: 'failover-waiting', next: { verb: 'observe' } }]);

  expect(await done('commit', 'vm')).toMatchObject({ type: 'commit', epoch: 2, tracking: 'logging' });
  await configure(join(out, 'vm.raw'));
  await done('reload');
  expect(await done('reverse', 'vm')).toMatchObject({ type: 'reverse', by: 'logs' });
  await running.untilDone('vm', 'ship');

  const control = await connectAgent(join(directory, 'home'));
  const said: ItemEvent[] = [];
  const report = await control.operate('failback', 'vm', { mode: 'delta' }, { onEvent: (event) => said.push(event) });
  control.close();
  expect(report).toMatchObject({ state: 'ready', disks: [{ path: join(directory, 'vm.raw'), writtenBytes: 0 }] });
  expect(said.find(({ type }) => type === 'progress')).toMatchObject({ phase: 'failback', totalBytes: 8 * MIB });
  expect(await done('commit', 'vm')).toMatchObject({ epoch: 3 });
  await configure('vm.raw');
  await done('reload');
  expect(await done('reverse', 'vm')).toMatchObject({ by: 'logs' });
  await running.untilDone('vm', 'ship');
  expect(await running.end('SIGTERM')).toBe(0);
});

test('a test failover beside the cycles; who goes away, and the end of the agent, stop what was asked for', async () => {
  const running = await begin();
  const out = join(directory, 'test');
  expect(await done('failover', 'vm', '--test', '--out', out, '--format', 'raw')).toMatchObject({ type: 'failover' });
  expect(await done('cancel', 'vm', '--test')).toMatchObject({ removed: [join(out, 'vm.raw')] });
  expect(await ask('failover', 'vm')).toMatchObject({ code: 2, stderr: expect.stringContaining('add --out DIR') });
  expect(await ask('failover', 'nobody', '--out', out)).toMatchObject({ code: 2 });

  const stops = (from: number): Promise<unknown> =>
    running.until((event) => event.type === 'operation-stopped' && event.verb === 'failover', from);
  const slow = async (
    n: number,
  ): Promise<{ readonly control: Awaited<ReturnType<typeof connectAgent>>; readonly failed: Promise<unknown> }> => {
    const from = running.events.length;
    const control = await connectAgent(join(directory, 'home'));
    const request = { point: 'latest', outDirectory: join(directory, `slow-${n}`), test: true } as const;
    // Stopped the moment it begins: what it had begun to write is gone again.
    const failed = control.operate('failover', 'vm', request).catch((error: unknown) => error);
    await running.until((event) => event.type === 'operation-started' && event.verb === 'failover', from);
    return { control, failed };
  };
  const from = running.events.length;
  const { control } = await slow(1);
  control.close();
  await stops(from);
  await running.untilDone('vm', 'ship');
  const { failed } = await slow(2);
  expect(await running.end('SIGTERM')).toBe(0);
  expect(await failed).toMatchObject({ code: expect.stringMatching(/ABORTED|AGENT_GONE/) });
});
