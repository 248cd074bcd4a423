/**
 * The agent for a quarter of an hour: two machines under load, kill -9 of the agent every minute, and a store that is away for a
 * fifth of the time. It recovers without anybody's help, and what it leaves is what the disks hold.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { runCli } from '../cli/support.ts';
import { type RunningAgent, startAgentProcess } from '../support/agent.ts';
import { startAzurite } from '../support/azurite.ts';
import { cutLine } from '../support/cut-line.ts';
import { numberFromEnvironment } from '../support/dice.ts';
import { missingTool } from '../support/tools.ts';

const SECONDS = numberFromEnvironment('BLOCKFERRY_SOAK_SECONDS', 900);
const KILL_EVERY_SECONDS = Math.min(60, SECONDS / 6);
const NAMES = ['one', 'two'] as const;

test.skipIf(missingTool('fio'))(
  'two machines stay protected through kills of the agent and an outage of the store',
  { timeout: (SECONDS + 1200) * 1000 },
  async () => {
    const directory = await mkdtemp(join(tmpdir(), 'bf-agent-soak-'));
    const home = join(directory, 'home');
    const azurite = await startAzurite(join(directory, 'blobs'));
    const line = await cutLine(azurite.port);
    const trackers = new Set<number>();
    let agent: RunningAgent | undefined;
    try {
      const store = azurite.account.replace(String(azurite.port), String(line.port));
      const config = join(directory, 'agent.yaml');
      await writeFile(config, configText(directory, store));
      for (const name of NAMES) execFileSync('truncate', ['-s', '1G', join(directory, `${name}.raw`)]);
      agent = await startAgentProcess(config);
      await Promise.all(NAMES.map((name) => agent!.until((event) => isServed(event, name))));
      for (const name of NAMES) trackers.add(await trackerOf(home, name));

      const guests = Promise.all(NAMES.map((name) => guest(directory, name)));
      const startedMs = Date.now();
      let kills = 0;
      let failures = 0;
      const outage = { fromMs: startedMs + SECONDS * 400, toMs: startedMs + SECONDS * 600 };
      void delay(outage.fromMs - startedMs).then(() => line.cut());
      void delay(outage.toMs - startedMs).then(() => line.mend());
      while (Date.now() - startedMs < (SECONDS - KILL_EVERY_SECONDS) * 1000) {
        await delay(KILL_EVERY_SECONDS * 1000);
        failures += agent.events.filter(({ type }) => type === 'operation-failed').length;
        await agent.end('SIGKILL');
        kills += 1;
        agent = await startAgentProcess(config);
      }
      expect(await guests).toEqual(NAMES.map(() => 0));
      // By itself: nobody retries, and the ladder has its steps.
      const from = agent.events.length;
      await Promise.all(NAMES.map((name) => cycleWithin(agent!, name, from, 900_000)));
      const { events } = agent;
      expect(await agent.end('SIGTERM')).toBe(0);
      for (const pid of trackers) process.kill(pid, 'SIGTERM');
      await Promise.all([...trackers].map(gone));
      trackers.clear();

      for (const name of NAMES) {
        const run = async (...args: readonly string[]): Promise<void> => {
          const { code, stderr } = await runCli([...args, '--home', home]);
          expect(code, `${args.join(' ')}: ${stderr}`).toBe(0);
        };
        await run('ship', name);
        await run('verify', name);
        const out = join(directory, `out-${name}`);
        await run('failover', name, '--test', '--format', 'raw', '--out', out);
        execFileSync('cmp', [join(out, `${name}.raw`), join(directory, `${name}.raw`)]);
      }
      const done = events.filter((event) => event.type === 'operation-ended' && event.verb === 'ship').length;
      console.info(
        `${SECONDS} s: ${kills} kills, ${failures} failures that passed, ${done} cycles of the last agent, no loss`,
      );
      expect(failures).toBeGreaterThan(0);
    } finally {
      if (agent?.child.exitCode === null) await agent.end('SIGKILL');
      for (const pid of trackers) process.kill(pid, 'SIGKILL');
      await line.close();
      await azurite.stop();
      await rm(directory, { recursive: true, force: true });
    }
  },
);

function configText(directory: string, store: string): string {
  const machines = NAMES.map((name) =>
    [
      `  - name: ${name}`,
      `    disks: [${name}.raw]`,
      `    to: ${store}/soak/${name}`,
      `    serve: { listen: "unix:${directory}/${name}.sock" }`,
    ].join('\n'),
  );
  const defaults = 'defaults: { every: 5s, apply: { logs: 8 }, low-space: tell, resync: "00:00-00:00" }';
  return ['home: home', defaults, 'machines:', ...machines].join('\n');
}

/** Writes at random places for as long as the test runs; its exit code. */
function guest(directory: string, name: string): Promise<number | null> {
  const uri = `nbd+unix:///d0?socket=${directory}/${name}.sock`;
  const load = ['--rw=randwrite', '--bs=4k', '--iodepth=4', '--rate=400k', '--size=256M', '--fsync=64'];
  const time = ['--time_based=1', `--runtime=${SECONDS}`];
  const fio = spawn('fio', [`--name=${name}`, '--ioengine=nbd', `--uri=${uri}`, ...load, ...time], {
    cwd: directory,
    stdio: 'ignore',
  });
  return new Promise((resolve) => fio.once('close', resolve));
}

function isServed(event: RunningAgent['events'][number], name: string): boolean {
  return event.type === 'tracker' && event.machine === name && event.what === 'started';
}

async function cycleWithin(agent: RunningAgent, name: string, from: number, ms: number): Promise<void> {
  for (const untilMs = Date.now() + ms; Date.now() < untilMs; await delay(500)) {
    const isDone = agent.events
      .slice(from)
      .some((event) => event.type === 'operation-ended' && event.machine === name && event.verb === 'ship');
    if (isDone) return;
  }
  throw new Error(`no cycle of ${name}: ${agent.talk().slice(-2000)}`);
}

/** The process that serves the disks of an item: the holder of the newest lock of its tracking. */
async function trackerOf(home: string, name: string): Promise<number> {
  const directory = join(home, 'items', name, 'tracking');
  const numbers = (await readdir(directory)).flatMap((entry) => Number(/^lock-(\d+)$/.exec(entry)?.[1] ?? 0));
  const text = await readFile(join(directory, `lock-${Math.max(...numbers)}`), 'utf8');
  return (JSON.parse(text) as { processId: number }).processId;
}

async function gone(pid: number): Promise<void> {
  for (;;) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
    await delay(100);
  }
}
