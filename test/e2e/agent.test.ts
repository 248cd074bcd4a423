/**
 * The real agent, from the first copy to a disk that is brought back: what signals do, that a kill loses nothing, that
 * trackers outlive it, and what it tells to Prometheus and to operators.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { AgentStatus } from '../../src/index.ts';
import { records, runCli } from '../cli/support.ts';
import { type RunningAgent, startAgentProcess } from '../support/agent.ts';
import { type Azurite, freePort, startAzurite } from '../support/azurite.ts';
import { missingTool } from '../support/tools.ts';
import { qemuIo } from '../support/tracker.ts';

const MIB = 2 ** 20;

let azurite: Azurite;
let scratch: string;
const agents = new Set<RunningAgent>();
const trackers = new Set<number>();

beforeAll(async () => {
  azurite = await startAzurite();
  scratch = await mkdtemp(join(tmpdir(), 'bf-agent-'));
});
afterEach(async () => {
  for (const agent of agents) if (agent.child.exitCode === null) await agent.end('SIGKILL');
  agents.clear();
  for (const pid of trackers) {
    try {
      process.kill(pid, 'SIGTERM');
    } catch {
      // It ended by itself.
    }
  }
  trackers.clear();
});
afterAll(async () => {
  await azurite.stop();
  await rm(scratch, { recursive: true, force: true });
});

interface Lab {
  readonly directory: string;
  readonly home: string;
  readonly config: string;
  /** Replaces the configuration. */
  readonly write: (lines: readonly string[]) => Promise<void>;
  readonly start: () => Promise<RunningAgent>;
  readonly status: () => Promise<AgentStatus>;
  readonly ask: (...args: readonly string[]) => ReturnType<typeof runCli>;
  /** Restores the newest point of a machine and gives the bytes of its first disk. */
  readonly restore: (name: string) => Promise<Buffer>;
}

/** A home, a configuration, and disks `NAME.raw` of 8 MiB. */
async function lab(names: readonly string[], lines: readonly string[]): Promise<Lab> {
  const directory = await mkdtemp(join(scratch, 'lab-'));
  const home = join(directory, 'home');
  const config = join(directory, 'agent.yaml');
  for (const name of names)
    await writeFile(join(directory, `${name}.raw`), Buffer.concat([randomBytes(4 * MIB), Buffer.alloc(4 * MIB)]));
  // The space of the machine that tests run on is its own business.
  const write = (more: readonly string[]): Promise<void> =>
    writeFile(
      config,
      `${['home: home', 'metrics: 127.0.0.1:0', 'defaults: { low-space: tell }', ...more].join('\n')}\n`,
    );
  await write(lines);
  const ask = (...args: readonly string[]): ReturnType<typeof runCli> =>
    runCli(['agent', ...args, '--config', config, '--json']);
  return {
    ...{ directory, home, config, write, ask },
    start: async () => {
      const agent = await startAgentProcess(config);
      agents.add(agent);
      return agent;
    },
    status: async () => records(await ask('status')).at(-1) as unknown as AgentStatus,
    restore: async (name) => {
      const out = await mkdtemp(join(directory, 'out-'));
      const args = ['failover', name, '--test', '--format', 'raw', '--out', out, '--home', home];
      const { code, stderr } = await runCli(args);
      expect(code, stderr).toBe(0);
      return readFile(join(out, `${name}.raw`));
    },
  };
}

const machine = (name: string, to: string, ...more: readonly string[]): readonly string[] => [
  `  - name: ${name}`,
  `    disks: [${name}.raw]`,
  `    to: ${to}`,
  ...more.map((line) => `    ${line}`),
];

const blobs = (name: string): string => `${azurite.account}/agent/${name}-${randomBytes(4).toString('hex')}`;

test('protects machines in a folder and in blobs, cycle by cycle, and ends cleanly with SIGTERM', async () => {
  const { directory, ...it } = await lab(['one', 'two'], ['machines:']);
  const folder = `file://${directory}/store`;
  await it.write([
    'machines:',
    ...machine('one', folder, 'every: 1s', 'apply: { logs: 2 }'),
    ...machine('two', blobs('two'), 'every: 1s'),
  ]);
  // Credentials of the emulator come from the environment, as in production.
  const agent = await it.start();
  await Promise.all([agent.untilDone('one', 'ship', 3), agent.untilDone('two', 'ship', 2)]);
  const status = await it.status();
  expect(status.machines.map(({ name, state }) => [name, state])).toEqual([
    ['one', 'protected'],
    ['two', 'protected'],
  ]);
  expect(status.machines[0]!.totals.done).toBeGreaterThanOrEqual(3);
  expect(await agent.end('SIGTERM')).toBe(0);
  expect(agent.events.at(-1)).toMatchObject({ type: 'agent-stopped' });
  expect(agent.events.filter(({ type }) => type === 'operation-failed')).toEqual([]);
  for (const name of ['one', 'two']) {
    expect((await it.restore(name)).equals(await readFile(join(directory, `${name}.raw`))), name).toBe(true);
  }
});

test('a second agent on the home is exit 6, and without one the commands are exit 1', async () => {
  const it = await lab(['vm'], ['machines:']);
  await it.write(['machines:', ...machine('vm', `file://${it.directory}/store`)]);
  expect(await it.ask('status')).toMatchObject({ code: 1, stdout: expect.stringContaining('"code":"AGENT_GONE"') });
  const agent = await it.start();
  const second = await runCli(['agent', '--config', it.config]);
  expect(second.code, second.stderr).toBe(6);
  expect(await agent.end('SIGTERM')).toBe(0);
});

test('a configuration with mistakes is exit 2 with each of them, and no configuration is too', async () => {
  const it = await lab([], ['machines:', '  - name: vm', '    evry: 5']);
  const { code, stderr } = await runCli(['agent', '--config', it.config]);
  expect(code).toBe(2);
  expect(stderr).toMatch(
    /agent\.yaml:5:5: "machines" lacks "disks"[\s\S]*:6:5: "evry" is not a known key; did you mean "every"\?/,
  );
  expect((await runCli(['agent'])).code).toBe(2);
  expect((await runCli(['agent', '--config', join(it.directory, 'none.yaml')])).code).toBe(2);
});

test('SIGHUP takes a new configuration, and refuses a broken one while the old one stays', async () => {
  const it = await lab(['one', 'two'], ['machines:']);
  const one = machine('one', `file://${it.directory}/one`, 'every: 1s');
  await it.write(['machines:', ...one]);
  const agent = await it.start();
  await agent.untilDone('one', 'ship');
  await it.write(['machines:', ...one, ...machine('two', `file://${it.directory}/two`, 'every: 1s')]);
  agent.child.kill('SIGHUP');
  expect(await agent.until(({ type }) => type === 'config-reloaded')).toMatchObject({ added: ['two'], removed: [] });
  await agent.untilDone('two', 'ship');
  await it.write(['machines: 7']);
  agent.child.kill('SIGHUP');
  await agent.until(({ type }) => type === 'config-refused');
  await Promise.all([agent.untilDone('one', 'ship'), agent.untilDone('two', 'ship')]);
  const broken = await runCli(['agent', 'reload', '--home', it.home, '--json']);
  expect(broken).toMatchObject({ code: 2, stdout: expect.stringContaining('"code":"CONFIG_INVALID"') });
  await it.write(['machines:', ...machine('two', `file://${it.directory}/two`, 'every: 1s')]);
  expect((await it.ask('reload')).stdout).toContain('"removed":["one"]');
  expect((await it.status()).machines.map(({ name }) => name)).toEqual(['two']);
  expect(await agent.end('SIGTERM')).toBe(0);
});

test('an operator pauses, resumes, retries, resyncs, and watches', async () => {
  const it = await lab(['vm'], ['machines:']);
  await it.write(['machines:', ...machine('vm', `file://${it.directory}/store`, 'every: 1s', 'resync: manual')]);
  const agent = await it.start();
  await agent.untilDone('vm', 'ship');
  const watch = runCli(['agent', 'events', '--config', it.config, '--json']);
  expect((await it.ask('pause', 'vm')).code).toBe(0);
  expect((await it.status()).machines[0]).toMatchObject({ state: 'suspended', suspendedSinceMs: expect.any(Number) });
  expect((await it.ask('resync', 'vm')).stdout).toContain('"code":"ILLEGAL_STATE"');
  expect((await it.ask('resume', 'vm')).code).toBe(0);
  await agent.untilDone('vm', 'ship');
  expect((await it.ask('resync', 'vm')).code).toBe(0);
  await agent.until((event) => event.type === 'operation-ended' && event.verb === 'resync');
  expect((await it.ask('retry', 'vm')).code).toBe(0);
  expect(await it.ask('retry', 'nobody')).toMatchObject({
    code: 2,
    stdout: expect.stringContaining('"ITEM_NOT_FOUND"'),
  });
  expect(await agent.end('SIGTERM')).toBe(0);
  const seen = records(await watch).map(({ type }) => type);
  expect(seen).toContain('operation-ended');
  expect(seen.at(-1)).toBe('agent-stopped');
});

test('what Prometheus scrapes is what the manual says, and nothing of it is to be had from elsewhere', async () => {
  const it = await lab(['vm'], ['machines:']);
  const store = `file://${it.directory}/store`;
  await it.write([
    'gateway:',
    `  listen: 127.0.0.1:${await freePort()}`,
    '  cache: { directory: cache, limit: 1GiB, low-space: tell }',
    `  stores: [{ name: here, to: '${store}' }]`,
    "  clients: [{ name: one, token-file: one.token, may: ['here/one'] }]",
    'machines:',
    ...machine('vm', store, 'every: 1s'),
  ]);
  await writeFile(join(it.directory, 'one.token'), 'one-'.repeat(16));
  const agent = await it.start();
  await agent.untilDone('vm', 'ship', 2);
  const { metrics } = await it.status();
  const response = await fetch(metrics!);
  expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
  const text = await response.text();
  const value = (name: string): number =>
    Number(new RegExp(`^${name.replace(/[{}"]/g, '\\$&')} (.+)$`, 'm').exec(text)?.[1]);
  expect(value('blockferry_machine_state_code{machine="vm"}')).toBe(3);
  expect(value('blockferry_machine_cycles_total{machine="vm",result="done"}')).toBeGreaterThanOrEqual(2);
  expect(value('blockferry_machine_rpo_seconds{machine="vm"}')).toBeLessThan(30);
  expect(value('blockferry_machine_last_duration_seconds{machine="vm",verb="ship"}')).toBeGreaterThan(0);
  expect(value('blockferry_agent_machines')).toBe(1);
  const manual = await readFile(new URL('../../docs/agent.md', import.meta.url), 'utf8');
  const served = new Set(
    [...text.matchAll(/^# TYPE (blockferry_\w+) (\w+)$/gm)].map(([, name, kind]) => `${name} ${kind}`),
  );
  const documented = new Set(
    [...manual.matchAll(/^\| `(blockferry_\w+)` \| (\w+) \|/gm)].map(([, name, kind]) => `${name} ${kind}`),
  );
  expect(served).toEqual(documented);
  expect(text).toContain('process_resident_memory_bytes');
  expect((await fetch(new URL('/', metrics))).status).toBe(404);
  expect((await fetch(metrics!, { method: 'POST' })).status).toBe(404);
  expect(await agent.end('SIGTERM')).toBe(0);
});

test.skipIf(missingTool('qemu-io'))(
  'a guest writes on through kill -9 of agent and tracker; nothing is lost and nothing is copied anew',
  async () => {
    const it = await lab(['vm'], ['machines:']);
    const socket = join(it.directory, 'nbd.sock');
    const serve = `serve: { listen: "unix:${socket}" }`;
    await it.write(['machines:', ...machine('vm', blobs('vm'), 'every: 1s', 'apply: { logs: 3 }', serve)]);
    const uri = `nbd+unix:///d0?socket=${socket}`;
    let agent = await it.start();
    await agent.until((event) => event.type === 'tracker' && event.what === 'started');
    const tracker = await trackerOf(it.home);
    trackers.add(tracker);
    for (let round = 0; round < 4; round += 1) {
      await qemuIo(uri, [`write -P ${round + 1} ${round}M 512k`, 'flush']);
      // At any moment of a cycle.
      await new Promise((resolve) => setTimeout(resolve, 300 * round));
      await agent.end('SIGKILL');
      await qemuIo(uri, [`write -P ${round + 11} ${round + 4}M 256k`, 'flush']);
      agent = await it.start();
      await agent.until((event) => event.type === 'tracker' && event.what === 'found');
      await agent.untilDone('vm', 'ship');
    }
    // The tracker itself: the agent starts another one, which recovers its logs.
    process.kill(tracker, 'SIGKILL');
    await agent.until((event) => event.type === 'tracker' && event.what === 'ended');
    await agent.until((event) => event.type === 'tracker' && event.what === 'started');
    const second = await trackerOf(it.home);
    trackers.add(second);
    expect(second).not.toBe(tracker);
    await qemuIo(uri, ['write -P 99 7M 64k', 'flush']);
    await agent.untilDone('vm', 'ship', 3);
    expect(agent.events.filter((event) => event.type === 'operation-started' && event.verb === 'resync')).toEqual([]);
    const { totals } = (await it.status()).machines[0]!;
    expect(totals.done).toBeGreaterThan(5);
    expect(await agent.end('SIGTERM')).toBe(0);
    // Its end takes no disk away from the guest.
    await qemuIo(uri, ['read -P 99 7M 64k']);
    expect((await it.restore('vm')).equals(await readFile(join(it.directory, 'vm.raw')))).toBe(true);
  },
);

test.skipIf(missingTool('qemu-io'))(
  'carries a machine on to a second store, which is away for a while and has all points when it is back',
  async () => {
    const it = await lab(['vm'], ['machines:']);
    const socket = join(it.directory, 'nbd.sock');
    const uri = `nbd+unix:///d0?socket=${socket}`;
    const site = join(it.directory, 'site');
    const second = `file://${site}/vm`;
    // Where the folder should be is a file.
    await writeFile(site, 'away');
    const serve = `serve: { listen: "unix:${socket}" }`;
    const to = `[${blobs('vm')}, "${second}"]`;
    await it.write(['machines:', ...machine('vm', to, 'every: 1s', 'apply: { logs: 3 }', serve)]);
    const agent = await it.start();
    await agent.until(({ type }) => type === 'store-failed');
    trackers.add(await trackerOf(it.home));
    await qemuIo(uri, ['write -P 41 1M 512k', 'flush']);
    await agent.untilDone('vm', 'ship', 3);
    expect((await it.status()).machines[0]).toMatchObject({
      totals: { failed: 0 },
      also: [{ url: second, trouble: { count: 1 } }],
    });
    await rm(site);
    await it.ask('reload');
    await agent.until(({ type }) => type === 'store-carried');
    const from = agent.events.length;
    await qemuIo(uri, ['write -P 42 2M 512k', 'flush']);
    await agent.untilDone('vm', 'ship', 2);
    await agent.until(({ type }) => type === 'store-carried', from);
    expect(await agent.end('SIGTERM')).toBe(0);
    expect(agent.events.filter((event) => event.type === 'operation-failed')).toEqual([]);
    // A cycle may have come behind what was carried last; the command of this home knows the store too.
    const carried = await runCli(['mirror', 'vm', '--home', it.home, '--json']);
    expect(carried.code, carried.stderr).toBe(0);
    const out = join(it.directory, 'from-second');
    const key = join(it.home, 'items', 'vm', 'vm.key');
    const restored = await runCli([
      ...['failover', 'vm', '--test', '--from', second, '--key-file', key, '--out', out, '--format', 'raw'],
      ...['--home', join(it.directory, 'other')],
    ]);
    expect(restored.code, restored.stderr).toBe(0);
    expect((await readFile(join(out, 'vm.raw'))).equals(await readFile(join(it.directory, 'vm.raw')))).toBe(true);
  },
);

test('the program of the manual runs as it stands there', async () => {
  const manual = await readFile(new URL('../../docs/agent.md', import.meta.url), 'utf8');
  const [, program] = /```js\n([\s\S]*?)```/.exec(manual)!;
  const directory = await mkdtemp(join(scratch, 'program-'));
  await mkdir(join(directory, 'home'));
  await writeFile(join(directory, 'web1.raw'), randomBytes(MIB));
  const text = `process.chdir(${JSON.stringify(directory)});\n${program}`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', text], {
    cwd: new URL('../..', import.meta.url).pathname,
  });
  expect(stdout).toMatch(/^web1 protect\n(?:web1 \w+\n)*web1 ship\nprotected\n$/);
});

/** The process that serves the disks of the one item of a home: the holder of the newest lock of its tracking. */
async function trackerOf(home: string): Promise<number> {
  const directory = join(home, 'items', 'vm', 'tracking');
  const { stdout } = await promisify(execFile)('sh', ['-c', `cat "$(ls -v ${directory}/lock-* | tail -1)"`]);
  return (JSON.parse(stdout) as { processId: number }).processId;
}
