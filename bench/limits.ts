/** The programs of limit-process.ts as contestants: the least that a command could take in Node on this machine. */
import { truncate, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { Lab } from './lab.ts';
import { type Command, measure } from './measure.ts';
import type { Contestant } from './race.ts';

/** Their names in the tables. */
export const LIMITS = {
  read: 'limit: reading',
  compress: 'limit: reading and compressing',
  copy: 'limit: reading and writing',
  send: 'limit: reading and sending',
  serve: 'limit: NBD in Node',
} as const;

export function limitCommand(...args: readonly string[]): Command {
  return [process.execPath, fileURLToPath(new URL('./limit-process.js', import.meta.url)), ...args];
}

/** Reads `path` with two threads, and compresses its chunks. */
export function reading(path: string, what: 'read' | 'compress'): Contestant {
  return {
    name: LIMITS[what],
    command:
      what === 'read' ? 'two threads that read the disk' : 'two threads that read the disk and compress its chunks',
    run: () => measure(limitCommand(what, path)),
  };
}

/** Copies `path` to `to` but for its zeros, with two threads. */
export function copying(path: string, to: string, sizeBytes: number): Contestant {
  return {
    name: LIMITS.copy,
    command: 'two threads that read the disk and write what is not zeros to a new file on tmpfs',
    prepare: async () => {
      await writeFile(to, '');
      await truncate(to, sizeBytes);
    },
    run: () => measure(limitCommand('copy', path, to)),
  };
}

/** Sends `path` to a page blob. */
export function sending(path: string, lab: Lab, counts: () => Promise<Record<string, number>>): Contestant {
  return {
    name: LIMITS.send,
    command: 'a thread that reads the disk and sends it on eight connections, 4 MiB a write, without checksums',
    prepare: () => lab.store.reset(),
    run: async () => ({
      ...(await measure(limitCommand('send', path, `${lab.discarding()}/base`))),
      counts: await counts(),
    }),
  };
}
