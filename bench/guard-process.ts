/**
 * Outlives a run of the bench that is killed, and removes what it leaves: its programs, by process group, and its directories, which
 * may hold gigabytes of memory. It is told of both by lines of JSON on stdin, and acts when stdin ends, as it does with the run,
 * whatever ended that.
 */
import { rmSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuardNote } from './guard.ts';

/** Between the end of programs and the removal of their files: the kernel closes those meanwhile. */
const DYING_MS = 200;

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

const [groups, directories] = [new Set<number>(), new Set<string>()];
for await (const line of createInterface({ input: process.stdin })) {
  const { add, group, directory } = JSON.parse(line) as GuardNote;
  if (group !== undefined) add ? groups.add(group) : groups.delete(group);
  if (directory !== undefined) add ? directories.add(directory) : directories.delete(directory);
}
for (const group of groups) {
  try {
    process.kill(-group, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}
if (directories.size > 0) await sleep(DYING_MS);
for (const directory of directories) rmSync(directory, { recursive: true, force: true });
