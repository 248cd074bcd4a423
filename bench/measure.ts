/**
 * What a program costs: wall time, CPU seconds and peak memory, those of the children it waited for included.
 *
 * CPU and memory are what GNU time (`/usr/bin/time`) is told by the kernel when the program has ended: hundredths of a second,
 * and the largest resident set of any one process. Wall time is taken here, from the start of the program to its end, in
 * milliseconds; it holds the start of GNU time itself, which is one.
 */
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { killGroup, startGuarded, withDirectory } from './guard.ts';

const GNU_TIME = '/usr/bin/time';
/** Many times what the longest run takes: a program that hangs costs its row, not the bench. */
const RUN_MS_MAX = 120_000;

/** What one run cost. */
export interface Cost {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly peakMib: number;
}

export interface Measured extends Cost {
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly cwd?: string;
  /** Beside what this process has in its environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Interrupts the program when it is settled; with which code it ends then does not matter. */
  readonly until?: Promise<unknown>;
}

/** A program and its arguments. */
export type Command = readonly [program: string, ...args: readonly string[]];

/** Runs `command` to its end and says what it cost. @throws Error if it did not end with 0 */
export async function measure(command: Command, options: CommandOptions = {}): Promise<Measured> {
  if (!existsSync(GNU_TIME)) throw new Error(`${GNU_TIME} is not installed (Debian package time)`);
  return await withDirectory(tmpdir(), 'blockferry-measure-', async (folder) => {
    const figures = join(folder, 'figures');
    const timed: Command = [GNU_TIME, '--quiet', '--format=%U %S %M', `--output=${figures}`, ...command];
    const startedMs = performance.now();
    const said = await run(timed, options);
    const wallMs = performance.now() - startedMs;
    const [userSeconds = 0, systemSeconds = 0, peakKib = 0] = (await readFile(figures, 'utf8')).split(' ').map(Number);
    return { wallMs, cpuMs: 1000 * (userSeconds + systemSeconds), peakMib: peakKib / 1024, ...said };
  });
}

/** Runs `command` to its end and gives what it said. @throws Error if it did not end with 0, or not in time */
export async function run(
  command: Command,
  options: CommandOptions = {},
): Promise<{ readonly stdout: string; readonly stderr: string }> {
  const child = start(command, options);
  const said = { stdout: textOf(child.stdout), stderr: textOf(child.stderr) };
  let [late, interrupted] = [false, false];
  const interrupt = (): void => {
    interrupted = child.exitCode === null && child.kill('SIGINT');
  };
  options.until?.then(interrupt, interrupt);
  const timer = setTimeout(() => {
    late = true;
    killGroup(child);
  }, RUN_MS_MAX);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  }).finally(() => clearTimeout(timer));
  const [stdout, stderr] = [said.stdout(), said.stderr()];
  if (late) throw new Error(`${command.join(' ')} took longer than ${RUN_MS_MAX / 1000} s and was ended`);
  if (code !== 0 && !interrupted) throw new Error(`${command.join(' ')} ended with ${code}: ${stderr || stdout}`);
  return { stdout, stderr };
}

/** Starts `command`; its output comes through pipes, which have to be read. */
export function start([program, ...args]: Command, { cwd, env }: CommandOptions = {}): ChildProcess {
  return startGuarded(program, args, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
}

/** All that a stream has said so far. */
function textOf(stream: NodeJS.ReadableStream | null): () => string {
  const pieces: Buffer[] = [];
  stream?.on('data', (piece: Buffer) => pieces.push(piece));
  return () => Buffer.concat(pieces).toString('utf8');
}

/** What a process that goes on has used of the processors so far, all its threads together. Linux only. */
export async function cpuMsOf(pid: number): Promise<number> {
  const TICK_MS = 10; // sysconf(_SC_CLK_TCK) is 100 on every Linux that Node runs on
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  // Behind the name, which may hold anything but ends with the last parenthesis, utime and stime are fields 12 and 13.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return TICK_MS * (Number(fields[11]) + Number(fields[12]));
}

/** The largest resident set that a process has had. Linux only. */
export async function peakMibOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? Number.NaN) / 1024;
}
