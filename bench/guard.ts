/**
 * Programs and directories of a run that go when the run goes, even by SIGKILL: a process beside it keeps an eye on it. Each program
 * leads a process group of its own, so that what it has started goes with it.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A line that the guard is told. */
export interface GuardNote {
  readonly add: boolean;
  /** A process group. */
  readonly group?: number;
  readonly directory?: string;
}

/** One for this process, from the first thing that it guards. */
let guard: ChildProcess | undefined;

function tell(note: GuardNote): void {
  if (guard === undefined) {
    const program = fileURLToPath(new URL('./guard-process.js', import.meta.url));
    guard = spawn(process.execPath, [program], { detached: true, stdio: ['pipe', 'ignore', 'inherit'] });
    guard.unref();
    // A guard that is gone guards nothing, and that is no reason to stop.
    guard.stdin!.on('error', () => {});
  }
  guard.stdin!.write(`${JSON.stringify(note)}\n`);
}

/** Lets the guard end; it holds nothing any more. */
export function dismissGuard(): void {
  if (guard !== undefined) guard.stdin!.end();
  guard = undefined;
}

/**
 * Starts a program as the leader of a group that does not outlive this process. Certificates that the environment adds to those of
 * Node stay out: it would read them all at its start, which takes it three times as long then.
 */
export function startGuarded(program: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  const { NODE_EXTRA_CA_CERTS: _, ...env } = options.env ?? process.env;
  const child = spawn(program, args, { ...options, env, detached: true });
  const group = child.pid;
  if (group === undefined) return child;
  tell({ add: true, group });
  child.once('exit', () => tell({ add: false, group }));
  return child;
}

/** Ends a program and all that it has started. */
export function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Makes a directory below `parent` for `body`, and removes it afterwards. */
export async function withDirectory<T>(parent: string, prefix: string, body: (path: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(parent, prefix));
  tell({ add: true, directory });
  try {
    return await body(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
    tell({ add: false, directory });
  }
}
