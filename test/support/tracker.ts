/** The real tracker as a process of its own, and clients that write through it. */
import type { ChildProcess } from 'node:child_process';
import { execFile } from 'node:child_process';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import type { Listening } from '../../src/index.ts';
import { startCli } from '../cli/support.ts';

const execute = promisify(execFile);

export interface RunningTracker {
  readonly child: ChildProcess;
  readonly listening: Listening;
  /** What it said on stderr so far. */
  readonly talk: () => string;
  /** URI of a disk for NBD clients. */
  readonly uri: (disk: string) => string;
  /** Ends it as an operator does; resolves with its exit code. */
  readonly stop: () => Promise<number | null>;
  /** kill -9. */
  readonly kill: () => Promise<void>;
}

/** Starts `track` and waits until it listens. */
export async function startTracker(
  name: string,
  home: string,
  options: { readonly listen?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<RunningTracker> {
  const listen = options.listen === undefined ? [] : ['--listen', options.listen];
  const child = startCli(['track', name, '--json', '--home', home, ...listen], { env: options.env ?? {} });
  let talk = '';
  child.stderr!.on('data', (bytes: Buffer) => {
    talk += bytes.toString('utf8');
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const listening = await new Promise<Listening>((resolve, reject) => {
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const record = JSON.parse(line) as Listening & { type: string };
      if (record.type === 'listening') resolve(record);
    });
    void ended.then((code) => reject(new Error(`track ended with ${code} before it listened: ${talk}`)));
  });
  return {
    child,
    listening,
    talk: () => talk,
    uri: (disk) => listening.exports.find((each) => each.name === disk)!.uri,
    stop: () => {
      child.kill('SIGINT');
      return ended;
    },
    kill: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** Runs qemu-io commands on a disk that is served; un-flushed unless a command says `flush` or `write -f`. */
export async function qemuIo(uri: string, commands: readonly string[]): Promise<void> {
  const args = commands.flatMap((command) => ['-c', command]);
  await execute('qemu-io', ['-f', 'raw', '-t', 'writeback', ...args, uri]);
}
