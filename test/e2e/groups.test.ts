/**
 * Points of several machines at one moment, with the real program: a client writes the same counter to one machine and then to
 * the other, over and over; at no moment may the second be ahead, or behind by more than the one write under way.
 */
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { records, runCli } from '../cli/support.ts';
import { type RunningAgent, startAgentProcess } from '../support/agent.ts';
import { CMD, NbdClient } from '../support/nbd-client.ts';
import { type RunningTracker, startTracker } from '../support/tracker.ts';

const SECTOR = 512;
const CYCLES = 4;

let directory: string;
const running: RunningTracker[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'bf-group-'));
});
afterEach(async () => {
  for (const tracker of running.splice(0)) await tracker.stop();
  await rm(directory, { recursive: true, force: true });
});

async function cli(args: readonly string[], code = 0): Promise<Record<string, unknown>[]> {
  const result = await runCli([...args, '--json', '--home', join(directory, 'home')]);
  expect(result.code, `${args.join(' ')}: ${result.stderr}`).toBe(code);
  return records(result);
}

async function makeDisk(name: string): Promise<string> {
  const disk = join(directory, `${name}.raw`);
  const file = await open(disk, 'w');
  await file.truncate(8 << 20);
  await file.close();
  return disk;
}

async function protect(name: string): Promise<void> {
  const disk = await makeDisk(name);
  await cli(['protect', name, disk, '--to', `file://${join(directory, 'store', name)}`, '--chunk-size', '64KiB']);
}

async function serve(name: string): Promise<RunningTracker> {
  const tracker = await startTracker(name, join(directory, 'home'));
  running.push(tracker);
  return tracker;
}

/** A guest of the machine's disk. */
function connect(name: string): Promise<NbdClient> {
  return NbdClient.open({ path: join(directory, 'home', 'items', name, 'tracking', 'nbd.sock') });
}

async function write(client: NbdClient, data: Uint8Array): Promise<void> {
  expect(await client.errorOf({ type: CMD.write, data })).toBe(0);
}

/** The counter that a point of a machine has. */
async function counterAt(name: string, point: string): Promise<number> {
  const out = join(directory, `${name}-${point}`);
  await cli(['failover', name, '--test', '--point', point, '--out', out, '--format', 'raw']);
  const file = await open(join(out, `${name}.raw`), 'r');
  const bytes = Buffer.alloc(4);
  await file.read(bytes, 0, 4, 0);
  await file.close();
  return bytes.readUInt32LE(0);
}

test('are one moment across machines, while both are written', async () => {
  for (const name of ['web', 'db']) await protect(name);
  const clients: NbdClient[] = [];
  for (const name of ['web', 'db']) {
    await serve(name);
    clients.push(await connect(name));
  }
  let stopped = false;
  const writing = (async () => {
    for (let counter = 1; !stopped; counter += 1) {
      const bytes = Buffer.alloc(SECTOR);
      bytes.writeUInt32LE(counter);
      for (const client of clients) await write(client, bytes);
    }
  })();
  const moments: Record<string, unknown>[][] = [];
  for (let cycle = 0; cycle < CYCLES; cycle += 1) moments.push(await cli(['ship', 'web', 'db']));
  stopped = true;
  await writing;
  for (const client of clients) await client.disconnect();

  const seen: number[] = [];
  for (const [web, db] of moments) {
    expect(web).toMatchObject({ item: 'web', pointTimeMs: db!['pointTimeMs'], group: db!['group'] });
    const [first, second] = [
      await counterAt('web', String(web!['pointId'])),
      await counterAt('db', String(db!['pointId'])),
    ];
    expect([first, first - 1], `${first} and ${second}`).toContain(second);
    seen.push(first);
  }
  expect(seen).toEqual([...seen].sort((a, b) => a - b));
  expect(seen.at(-1)).toBeGreaterThan(seen[0]!);
  const [point] = (await cli(['points', 'web'])).slice(-1);
  expect(point).toMatchObject({ group: moments.at(-1)![0]!['group'] });
});

test('are not made where one machine cannot: nobody rotates, and every guest goes on', async () => {
  for (const name of ['web', 'db']) await protect(name);
  await serve('web');
  const client = await connect('web');
  const gone = await serve('db');
  await write(client, Buffer.alloc(SECTOR, 1));
  await gone.kill();
  running.pop();
  await cli(['ship', 'web', 'db'], 1);
  await write(client, Buffer.alloc(SECTOR, 2));
  await client.disconnect();
  expect((await cli(['points', 'web'])).length).toBe(1);
  expect(await cli(['ship', 'web'])).toMatchObject([{ logs: 1, dataBytes: SECTOR }]);
  await cli(['ship', 'web', 'web'], 2);
});

test('are made on schedule by the agent, and where one machine cannot, the other keeps its own', async () => {
  for (const name of ['web', 'db']) await makeDisk(name);
  const config = join(directory, 'agent.yaml');
  const machine = (name: string): string =>
    `  - { name: ${name}, disks: [${name}.raw], to: "file://${directory}/store/${name}", chunk-size: 64KiB, low-space: tell }`;
  const group = 'groups: [{ name: shop, machines: [web, db], every: 1s }]';
  await writeFile(config, ['home: home', group, 'machines:', machine('web'), machine('db'), ''].join('\n'));
  const agent: RunningAgent = await startAgentProcess(config);
  try {
    // The first copies come first, each by itself.
    for (let moment = 0, from = 0; moment < 2; moment += 1) {
      from = agent.events.indexOf(await agent.until(({ type }) => type === 'group-shipped', from)) + 1;
    }
    const [web, db] = [await cli(['points', 'web']), await cli(['points', 'db'])];
    const shared = web.filter(({ group: id }) => id !== undefined && db.some((point) => point['group'] === id));
    expect(shared.length).toBeGreaterThanOrEqual(2);
    for (const { group: id, time } of shared) {
      expect(db.find((point) => point['group'] === id)).toMatchObject({ time });
    }
    expect((await runCli(['agent', 'pause', 'db', '--config', config])).code).toBe(0);
    expect(await agent.until(({ type }) => type === 'group-failed')).toMatchObject({
      group: 'shop',
      message: 'db: an operator paused it',
    });
    expect((await runCli(['agent', 'resume', 'db', '--config', config])).code).toBe(0);
    await agent.until(({ type }) => type === 'group-shipped', agent.events.length);
    const { stdout } = await runCli(['agent', 'status', '--config', config]);
    expect(stdout).toMatch(/group shop: web, db\n/);
  } finally {
    expect(await agent.end('SIGTERM'), agent.talk()).toBe(0);
  }
});
