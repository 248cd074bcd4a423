/**
 * The blob emulator as a process of its own, on a free port of the loopback. `--silent` leaves nothing on stdout to
 * wait for, so the port is asked until it answers.
 */
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../node_modules/azurite/dist/src/blob/main.js', import.meta.url));

export interface Azurite {
  readonly port: number;
  /** `http://127.0.0.1:<port>/devstoreaccount1` */
  readonly account: string;
  stop(): Promise<void>;
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

async function answers(port: number): Promise<boolean> {
  try {
    await (await fetch(`http://127.0.0.1:${port}/devstoreaccount1?comp=list`)).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

/** Starts an emulator with its data in memory, or in `location`. */
export async function startAzurite(location?: string): Promise<Azurite> {
  const port = await freePort();
  const data = location === undefined ? ['--inMemoryPersistence'] : ['--location', location];
  const child = spawn(
    process.execPath,
    [
      MAIN,
      '--blobHost',
      '127.0.0.1',
      '--blobPort',
      String(port),
      '--silent',
      '--skipApiVersionCheck',
      '--disableTelemetry',
      ...data,
    ],
    { stdio: 'ignore' },
  );
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const until = Date.now() + 60_000;
  while (!(await answers(port))) {
    if (child.exitCode !== null) throw new Error(`the emulator ended with ${child.exitCode}`);
    if (Date.now() > until) {
      child.kill('SIGKILL');
      throw new Error('the emulator did not answer in 60 s');
    }
    await delay(100);
  }
  return {
    port,
    account: `http://127.0.0.1:${port}/devstoreaccount1`,
    async stop() {
      child.kill('SIGTERM');
      await exited;
    },
  };
}
