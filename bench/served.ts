/** Disks served over NBD, by our tracker and by qemu-nbd: started, found, measured while they serve, ended. */
import { type ChildProcess, execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Ferry } from './blockferry.ts';
import { killGroup } from './guard.ts';
import { limitCommand } from './limits.ts';
import { type Command, cpuMsOf, peakMibOf, start } from './measure.ts';
import type { Outcome } from './race.ts';

const execute = promisify(execFile);
const START_MS_MAX = 20_000;
/** A tracker syncs its disk before it ends. */
const STOP_MS_MAX = 20_000;
const LOOK_MS = 20;

export interface Served {
  /** Of the first disk. */
  readonly uri: string;
  readonly uris: readonly string[];
  /** What `work` costs the server. */
  readonly during: (work: () => Promise<Readonly<Record<string, number>>>) => Promise<Outcome>;
  readonly stop: () => Promise<void>;
}

function served(child: ChildProcess, uris: readonly string[]): Served {
  const pid = child.pid!;
  return {
    uri: uris[0]!,
    uris,
    during: async (work) => {
      const [before, startedMs] = [await cpuMsOf(pid), performance.now()];
      const counts = await work();
      const wallMs = performance.now() - startedMs;
      return { wallMs, cpuMs: (await cpuMsOf(pid)) - before, peakMib: await peakMibOf(pid), counts };
    },
    stop: async () => {
      if (child.exitCode !== null) return;
      const timer = setTimeout(() => killGroup(child), STOP_MS_MAX);
      child.kill('SIGINT');
      await once(child, 'exit');
      clearTimeout(timer);
    },
  };
}

/** Starts `track` on the item of `ferry`. */
export async function startTrack(ferry: Ferry): Promise<Served> {
  const child = start(ferry.command('track', 'vm'));
  child.stderr?.resume();
  const ended = once(child, 'exit').then(() => Promise.reject(new Error('track ended before it listened')));
  const line = await Promise.race([once(createInterface({ input: child.stdout! }), 'line'), ended]);
  ended.catch(() => {});
  const { exports } = JSON.parse(String(line[0])) as { exports: readonly { uri: string }[] };
  return served(
    child,
    exports.map(({ uri }) => uri),
  );
}

/** Starts qemu-nbd on a raw file, with a socket beside it. */
export function startQemuNbd(disk: string): Promise<Served> {
  const socket = `${disk}.socket`;
  const options = ['--format=raw', '--persistent', '--cache=writeback', `--socket=${socket}`];
  return listening(['qemu-nbd', ...options, disk], socket);
}

/** Starts our NBD server over a device that forgets what is written. */
export function startForgetful(disk: string): Promise<Served> {
  const socket = `${disk}.socket`;
  return listening(limitCommand('serve', socket), socket);
}

async function listening(command: Command, socket: string): Promise<Served> {
  const child = start(command);
  child.stdout?.resume();
  child.stderr?.resume();
  const untilMs = performance.now() + START_MS_MAX;
  while (!existsSync(socket)) {
    if (performance.now() > untilMs || child.exitCode !== null) throw new Error(`${command.join(' ')} does not listen`);
    await sleep(LOOK_MS);
  }
  return served(child, [`nbd+unix:///?socket=${socket}`]);
}

/** Makes a raw file that holds nothing. */
export async function emptyRaw(path: string, sizeBytes: number): Promise<void> {
  await execute('truncate', ['-s', String(sizeBytes), path]);
}
