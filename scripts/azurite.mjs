// @ts-check
/**
 * The blob emulator as a process of its own, on a free port of the loopback, for the demo and the tests. `--silent`
 * leaves nothing on stdout to wait for, so the port is asked until it answers.
 */
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../node_modules/azurite/dist/src/blob/main.js', import.meta.url));
const START_MS_MAX = 60_000;

/**
 * A port that was free a moment ago.
 * @returns {Promise<number>}
 */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/**
 * @param {number} port
 * @returns {Promise<boolean>}
 */
async function answers(port) {
  try {
    await (await fetch(`http://127.0.0.1:${port}/devstoreaccount1?comp=list`)).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

/**
 * Starts an emulator with its data in memory, or in `location`. `account` is its URL,
 * `http://127.0.0.1:<port>/devstoreaccount1`; `stop` ends the process and waits until it is gone.
 *
 * @param {string} [location]
 * @param {AbortSignal} [signal] ends it at once, also while it starts
 * @returns {Promise<{ readonly port: number, readonly account: string, stop(): Promise<void> }>}
 */
export async function startAzurite(location, signal) {
  const port = await freePort();
  const data = location === undefined ? ['--inMemoryPersistence'] : ['--location', location];
  const address = ['--blobHost', '127.0.0.1', '--blobPort', String(port)];
  const manners = ['--silent', '--skipApiVersionCheck', '--disableTelemetry'];
  const child = spawn(process.execPath, [MAIN, ...address, ...manners, ...data], { stdio: 'ignore' });
  /** @type {Promise<void>} */
  const exited = new Promise((resolve) => child.once('exit', () => resolve()));
  const stop = async () => {
    child.kill('SIGTERM');
    await exited;
  };
  const until = Date.now() + START_MS_MAX;
  while (!(await answers(port))) {
    if (child.exitCode !== null) throw new Error(`the emulator ended with ${child.exitCode}`);
    if (signal?.aborted || Date.now() > until) {
      child.kill('SIGKILL');
      await exited;
      throw new Error(signal?.aborted ? 'interrupted' : `the emulator did not answer in ${START_MS_MAX / 1000} s`);
    }
    await delay(100);
  }
  return { port, account: `http://127.0.0.1:${port}/devstoreaccount1`, stop };
}
