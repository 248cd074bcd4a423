/** Two hosts, one gateway, the emulator behind it: the real programs, with the store cut off and the gateway killed. */
import { appendFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openStore } from '../../src/transport/index.ts';
import { records, runCli } from '../cli/support.ts';
import { type Azurite, startAzurite } from '../support/azurite.ts';
import { type CutLine, cutLine } from '../support/cut-line.ts';
import { GatewayProcess, MachineBehind } from './process.ts';
import { roomyPorts } from './support.ts';

let azurite: Azurite;
let line: CutLine;
let gateway: GatewayProcess;
const machines: MachineBehind[] = [];

beforeAll(async () => {
  azurite = await startAzurite();
  line = await cutLine(azurite.port);
  const account = azurite.account.replace(`:${azurite.port}/`, `:${line.port}/`);
  gateway = await GatewayProcess.create({ store: `${account}/behind` });
  await gateway.start();
  for (const name of ['one', 'two']) machines.push(await MachineBehind.begin(name, gateway, direct(name)));
}, 120_000);
afterAll(async () => {
  for (const machine of machines) await machine.end();
  await gateway.close();
  await line.close();
  await azurite.stop();
});

function direct(name: string): string {
  return `${azurite.account}/behind/${name}/vm`;
}

describe('two machines behind one gateway', { timeout: 240_000 }, () => {
  it('reach the store, and are restored from it byte for byte', async () => {
    for (const machine of machines) {
      const disk = await machine.write();
      expect((await machine.ship()).code).toBe(0);
      await gateway.drained();
      expect((await machine.restoreDirectly()).equals(disk)).toBe(true);
    }
  });

  it('ship while the store is away; when it is back all of it gets there in order', async () => {
    const safe = new Map<MachineBehind, unknown>();
    for (const machine of machines) safe.set(machine, (await machine.must('status', machine.name))['lastPointMs']);
    line.cut();
    const disks = new Map<MachineBehind, Buffer[]>(machines.map((machine) => [machine, []]));
    for (let cycle = 0; cycle < 3; cycle += 1) {
      for (const machine of machines) {
        const disk = await machine.write(256 << 10);
        const startedMs = performance.now();
        const shipped = await machine.ship();
        expect(shipped.code, shipped.stderr).toBe(0);
        expect(performance.now() - startedMs).toBeLessThan(10_000);
        disks.get(machine)!.push(disk);
      }
    }
    const { replicas, health } = await gateway.status();
    expect(replicas.map(({ place, points }) => [place, points])).toEqual([
      ['cloud/one/vm', 3],
      ['cloud/two/vm', 3],
    ]);
    expect(health.level).not.toBe('normal');
    expect(health.findings).toContainEqual(
      expect.objectContaining({ code: 'GATEWAY_STORE_AWAY', severity: 'warning' }),
    );
    // What only the gateway has is not forgotten beside the disks.
    for (const machine of machines) {
      expect(await machine.logBytes()).toBeGreaterThan(3 * (128 << 10));
      // Nor is it protected yet.
      expect((await machine.must('status', machine.name))['lastPointMs']).toBe(safe.get(machine));
    }

    line.mend();
    await gateway.drained();
    for (const machine of machines) {
      expect((await machine.restoreDirectly()).equals(disks.get(machine)![2]!)).toBe(true);
      const points = records(await machine.run('points', machine.name)).map(({ id }) => String(id));
      const [first, second] = points.slice(-3);
      expect((await machine.restoreDirectly(first)).equals(disks.get(machine)![0]!)).toBe(true);
      expect((await machine.restoreDirectly(second)).equals(disks.get(machine)![1]!)).toBe(true);
      // The next cycle hears that they are there.
      await machine.write(64 << 10);
      expect((await machine.ship()).code).toBe(0);
      await gateway.drained();
      expect((await machine.ship()).code).toBe(0);
      expect(await machine.logBytes()).toBeLessThan(128 << 10);
    }
  });

  it('a gateway that is lost with all it held costs nothing but to ship again', async () => {
    const [machine] = machines as [MachineBehind];
    line.cut();
    for (let cycle = 0; cycle < 2; cycle += 1) {
      await machine.write(128 << 10);
      expect((await machine.ship()).code).toBe(0);
    }
    const disk = await machine.write(128 << 10);
    await gateway.kill();
    await rm(join(gateway.directory, 'cache'), { recursive: true });
    line.mend();
    await gateway.start();
    const shipped = await machine.ship();
    expect(shipped.code, shipped.stderr).toBe(0);
    await gateway.drained();
    expect((await machine.restoreDirectly()).equals(disk)).toBe(true);
    await machine.verifyDirectly();
  });

  it('a takeover at the other site while points wait is refused there and found here as without a gateway', async () => {
    const machine = machines[1]!;
    expect((await machine.ship()).code).toBe(0);
    await gateway.drained();
    line.cut();
    await machine.write(128 << 10);
    expect((await machine.ship()).code).toBe(0);
    const elsewhere = join(machine.directory, 'other-site');
    const key = join(machine.directory, 'key');
    const from = ['--from', direct('two'), '--key-file', key];
    const there = { env: { BLOCKFERRY_HOME: elsewhere } };
    const brought = await runCli(['failover', 'two', ...from, '--out', join(machine.directory, 'took-over')], there);
    expect(brought.code, brought.stderr).toBe(0);
    const committed = await runCli(['commit', 'two'], there);
    expect(committed.code, committed.stderr).toBe(0);
    line.mend();
    // Beside whatever it says of the space of the machine that tests run on.
    const codes = async (): Promise<string[]> =>
      (await gateway.status()).health.findings.map(({ code }: { readonly code: string }) => code);
    for (let tries = 0; !(await codes()).includes('GATEWAY_REFUSED'); tries += 1) expect(tries).toBeLessThan(100);
    const shipped = await machine.ship();
    expect(records(shipped).at(-1)).toMatchObject({ type: 'error', code: 'REPLICA_OTHER_SIDE' });
    // Its logs are there for the way back.
    expect(await machine.logBytes()).toBeGreaterThan(64 << 10);
  });

  it('a token that is wrong, a place of somebody else, and an open line are refused', async () => {
    const [machine] = machines as [MachineBehind];
    const other = {
      env: { BLOCKFERRY_GATEWAY_TOKEN_FILE: gateway.tokenFile('two'), BLOCKFERRY_HOME: machine.directory },
    };
    const key = ['--key-file', join(machine.directory, 'key')];
    const denied = await runCli(['points', 'one', '--from', gateway.url('one/vm'), ...key, '--json'], other);
    expect(denied.code).toBe(7);
    expect(records(denied).at(-1)).toMatchObject({ code: 'STORE_AUTHENTICATION', status: 403 });
    const wrong = join(machine.directory, 'wrong.token');
    await appendFile(wrong, 'x'.repeat(40));
    const unknown = { env: { ...other.env, BLOCKFERRY_GATEWAY_TOKEN_FILE: wrong } };
    const refused = await runCli(['points', 'one', '--from', gateway.url('one/vm'), ...key, '--json'], unknown);
    expect(records(refused).at(-1)).toMatchObject({ code: 'STORE_AUTHENTICATION', status: 401 });
    const ports = roomyPorts();
    const environment = { gateway: { tokenFile: wrong } };
    for (const url of [
      'gateway+http://gateway.example:9443/a/b',
      'gateway+ftp://127.0.0.1/a/b',
      'gateway+https://h/a',
    ]) {
      await expect(openStore(url, { ports, environment })).rejects.toMatchObject({ code: 'USAGE' });
    }
    await expect(openStore('gateway+https://h/a/b', { ports })).rejects.toMatchObject({ code: 'KEY_MISSING' });
    expect((await gateway.status()).denied).toBeGreaterThanOrEqual(2);
  });
});
