/** The store that a run sends to: the discarding server, in a process of its own. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Counts } from './discarding-server.ts';

export interface DiscardingStore {
  /** Of the account. */
  readonly url: string;
  /** What it was asked since the last `reset`. */
  readonly counts: () => Promise<Counts>;
  readonly reset: () => Promise<void>;
  readonly close: () => Promise<void>;
}

export async function startDiscardingStore(): Promise<DiscardingStore> {
  const program = fileURLToPath(new URL('./discarding-process.js', import.meta.url));
  const child = spawn(process.execPath, [program], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  const lines = createInterface({ input: child.stdout });
  const [url] = (await Promise.race([
    once(lines, 'line'),
    ended.then(() => Promise.reject(new Error('the discarding server did not start'))),
  ])) as [string];
  const counting = new URL('/counts', url);
  return {
    url,
    counts: async () => (await (await fetch(counting)).json()) as Counts,
    reset: async () => void (await fetch(counting, { method: 'DELETE' })),
    close: async () => {
      child.stdin.end();
      await ended;
    },
  };
}
