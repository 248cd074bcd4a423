/**
 * A watchdog for loops that may never end: where the thread of a test hangs, no timeout of the test runner comes. From
 * another thread it says which case hangs, and ends the process.
 */
import { Worker } from 'node:worker_threads';

/** Runs in its own thread: plain JavaScript, since a thread loads no TypeScript. */
const WATCH = `
const { workerData } = require('node:worker_threads');
const { writeSync } = require('node:fs');
const { cells, hangMs, what } = workerData;
let known = Atomics.load(cells, 0);
while (Atomics.wait(cells, 1, 0, hangMs) === 'timed-out') {
  const now = Atomics.load(cells, 0);
  if (now === known) {
    writeSync(2, what + ': case ' + now + ' hangs for ' + hangMs + ' ms\\n');
    process.kill(process.pid, 'SIGKILL');
  }
  known = now;
}
`;

export interface Watchdog {
  /** Case `caseNumber` begins. */
  alive(caseNumber: number): void;
  stop(): Promise<void>;
}

export function startWatchdog(hangMs: number, what: string): Watchdog {
  const cells = new Int32Array(new SharedArrayBuffer(8));
  cells[0] = -1;
  const worker = new Worker(WATCH, { eval: true, workerData: { cells, hangMs, what } });
  const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  return {
    alive: (caseNumber) => Atomics.store(cells, 0, caseNumber),
    async stop() {
      Atomics.store(cells, 1, 1);
      Atomics.notify(cells, 1);
      await ended;
    },
  };
}
