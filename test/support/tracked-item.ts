/** A protected disk under the real tracker, for the clients of others: all through the built program. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'vitest';
import { records, runCli } from '../cli/support.ts';
import { type RunningTracker, startTracker } from './tracker.ts';

const execute = promisify(execFile);
const MEASURE = new URL('./peak-memory.mjs', import.meta.url).href;

export type TrackedFormat = 'raw' | 'vhdx';

export interface TrackedItem {
  /** For files of the test. */
  readonly directory: string;
  /** The disk's own file. */
  readonly disk: string;
  readonly format: TrackedFormat;
  readonly tracker: RunningTracker;
  /** Of the disk, for NBD clients. */
  readonly uri: string;
  /** The socket that it names. */
  readonly socket: string;
  /** Runs an operation on the item, which must succeed, and gives its report. */
  readonly run: (command: string, ...args: readonly string[]) => Promise<Record<string, unknown>>;
  /** The change logs beside the disk, oldest first. */
  readonly logs: () => Promise<readonly string[]>;
  /** Brings the newest point back as a raw file. */
  readonly restore: () => Promise<string>;
  /** Ends the tracker in order; resolves with its peak memory in MiB. */
  readonly stop: () => Promise<number>;
}

/** Protects the disk that `make` makes, with chunks of 64 KiB, and tracks it. */
export async function trackItem(
  scratch: string,
  format: TrackedFormat,
  make: (path: string) => void | Promise<void>,
): Promise<TrackedItem> {
  const directory = await mkdtemp(join(scratch, 'item-'));
  const home = join(directory, 'home');
  // The disk has a folder of its own: everything else beside it are its logs.
  const disk = join(directory, 'disk', `disk.${format}`);
  await mkdir(dirname(disk));
  await make(disk);
  const run = async (command: string, ...args: readonly string[]): Promise<Record<string, unknown>> => {
    const result = await runCli([command, 'vm', ...args, '--json', '--home', home]);
    expect(result.code, `${command}: ${result.stderr}`).toBe(0);
    return records(result).at(-1)!;
  };
  await run('protect', disk, '--to', `file://${join(directory, 'store')}`, '--chunk-size', '64KiB');
  const tracker = await startTracker('vm', home, { env: { NODE_OPTIONS: `--import=${MEASURE}` } });
  expect(tracker.listening.tracking.mode).toBe('logging');
  return {
    directory,
    disk,
    format,
    tracker,
    uri: tracker.uri('d0'),
    socket: tracker.listening.listen.slice('unix:'.length),
    run,
    logs: async () => {
      const names = await readdir(dirname(disk));
      const logs = names.filter((name) => name.startsWith(`${basename(disk)}.`) && name.endsWith('.hrl'));
      return logs.sort().map((name) => join(dirname(disk), name));
    },
    restore: async () => {
      const out = await mkdtemp(join(directory, 'out-'));
      await run('failover', '--test', '--format', 'raw', '--out', out);
      return join(out, 'disk.raw');
    },
    stop: async () => {
      expect(await tracker.stop(), tracker.talk()).toBe(0);
      return Number(/peak (\d+)/.exec(tracker.talk())?.[1]) / 1024;
    },
  };
}

/** Makes an empty disk. */
export function emptyDisk(format: TrackedFormat, sizeBytes: number): (path: string) => Promise<void> {
  return async (path) => void (await execute('qemu-img', ['create', '-q', '-f', format, path, String(sizeBytes)]));
}

/** That `path`, a raw file, is what the disk holds, as qemu-img reads both. The disk is served by nobody. */
export async function expectSameDisk({ disk, format }: TrackedItem, path: string): Promise<void> {
  const { stdout } = await execute('qemu-img', ['compare', '-f', format, '-F', 'raw', disk, path]);
  expect(stdout).toContain('Images are identical');
}
