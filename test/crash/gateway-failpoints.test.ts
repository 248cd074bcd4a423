/**
 * kill -9 of a real gateway at each of its failpoints and at random moments, while a client commits one cycle after the other: what was
 * answered for is there afterwards, and the store never holds a root that names a log it lacks.
 */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import { openStore, type Store } from '../../src/transport/index.ts';
import { GatewayProcess } from '../gateway/process.ts';
import { roomyPorts } from '../gateway/support.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';

const SEED = numberFromEnvironment('BLOCKFERRY_SEED', 7);
const KILLS = 6 * numberFromEnvironment('BLOCKFERRY_KILLS', 1);
const PART = 64 * 1024;

let directory: string;
let gateway: GatewayProcess;
let client: Store;
let direct: Store;
/** The newest cycle that was answered for. */
let answered: number;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'bf-gateway-kill-'));
  const store = `file://${join(directory, 'store')}`;
  gateway = await GatewayProcess.create({ store });
  const ports = roomyPorts();
  direct = await openStore(`${store}/one/vm`, { ports });
  client = await openStore(gateway.url('one/vm'), {
    ports,
    environment: { gateway: { tokenFile: gateway.tokenFile('one') } },
  });
  await gateway.start();
  await client.put('root', cycleBytes(1), { ifMatch: null });
  answered = 1;
});
afterEach(async () => {
  await client.close();
  await gateway.close();
  await rm(directory, { recursive: true });
});

/** A root that says of which cycle it is, and so which log it names. */
function cycleBytes(number: number): Uint8Array {
  const bytes = Buffer.alloc(500, number % 251);
  bytes.writeUInt32LE(number, 0);
  return bytes;
}

async function newestAt(store: Store): Promise<number> {
  const root = await store.get('root', 1000);
  return Buffer.from(root!.bytes).readUInt32LE(0);
}

/** One cycle on whatever root there is; large logs in parts, small ones at once. */
async function cycle(): Promise<void> {
  const root = await client.get('root', 1000);
  const number = Buffer.from(root!.bytes).readUInt32LE(0) + 1;
  const key = `logs/${number}`;
  if (number % 2 === 0) {
    const staged = client.stage(key, PART);
    for (let part = 0; part < 3; part += 1) await staged.put(part, Buffer.alloc(PART, number));
    await staged.commit(3);
  } else {
    await client.put(key, Buffer.alloc(1000, number));
  }
  await client.put('root', cycleBytes(number), { ifMatch: root!.etag, early: true });
  answered = number;
}

/** Cycles until the gateway is gone. */
async function cycles(): Promise<void> {
  for (;;) {
    try {
      await cycle();
    } catch (error) {
      if (isBlockferryError(error, 'STORE_UNREACHABLE')) return;
      throw error;
    }
  }
}

/** The store as the kill left it: whatever root it holds, what that names is there. */
async function checkStore(): Promise<void> {
  const newest = await newestAt(direct);
  for (let number = 2; number <= newest; number += 1) {
    const log = await direct.get(`logs/${number}`, 4 * PART);
    expect(log, `log ${number} of root ${newest}`).toBeDefined();
    expect(log!.bytes.every((byte) => byte === number % 256)).toBe(true);
  }
}

/** Starts it again; nothing that was answered for may be missing, then or at the store in the end. */
async function recover(): Promise<void> {
  await checkStore();
  await gateway.start();
  expect(await newestAt(client)).toBeGreaterThanOrEqual(answered);
  const newest = await newestAt(client);
  for (let tries = 0; (await newestAt(direct)) < newest; tries += 1) {
    expect(tries).toBeLessThan(400);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await checkStore();
  const kept = await readdir(join(gateway.directory, 'cache'), { recursive: true });
  expect(kept.filter((name) => name.includes('refused'))).toEqual([]);
}

describe('a gateway that is killed', { timeout: 240_000 }, () => {
  it.each([
    ['gateway.after-staging', 1],
    ['gateway.after-queue', 1],
    ['gateway.after-queue', 2],
    ['gateway.after-upload', 1],
    ['gateway.after-upload', 2],
  ] as const)('at %s, hit %i, loses nothing that it answered for', async (name, hit) => {
    await gateway.kill();
    const { child } = await gateway.start({ BLOCKFERRY_FAILPOINTS: `${name}:${hit}=kill` });
    await cycles();
    await gateway.kill();
    expect(child.signalCode).toBe('SIGKILL');
    await recover();
  });

  it(`at any moment loses nothing that it answered for (seed ${SEED})`, async () => {
    const dice = new Dice(SEED);
    for (let kill = 0; kill < KILLS; kill += 1) {
      const under = cycles();
      await new Promise((resolve) => setTimeout(resolve, 20 + dice.below(600)));
      await gateway.kill();
      await under;
      await recover();
    }
    expect(answered).toBeGreaterThan(KILLS);
  });
});
