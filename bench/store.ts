/** The store that a run sends to: the discarding server, in a process of its own. */
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Counts } from './discarding-server.ts';
import { startGuarded } from './guard.ts';
import { cpuMsOf } from './measure.ts';

export interface DiscardingStore {
  /** Of the account. */
  readonly url: string;
  /** What it was asked since the last `reset`. */
  readonly counts: () => Promise<Counts & { readonly serverCpuMs: number }>;
  readonly reset: () => Promise<void>;
  readonly close: () => Promise<void>;
}

/**
 * An account that is not the emulators': to those blockferry sends an MD5, to Azure a CRC-64, and Azure is what the server stands
 * for. Any key does: the server looks at none.
 */
const ACCOUNT = 'bench';
export const CONNECTION_STRING: string = `AccountName=${ACCOUNT};AccountKey=${Buffer.alloc(64, 1).toString('base64')}`;

const ANSWER_MS_MAX = 10_000;

function soon(): { readonly signal: AbortSignal } {
  return { signal: AbortSignal.timeout(ANSWER_MS_MAX) };
}

export async function startDiscardingStore(): Promise<DiscardingStore> {
  const program = fileURLToPath(new URL('./discarding-process.js', import.meta.url));
  const child = startGuarded(process.execPath, [program], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  const lines = createInterface({ input: child.stdout! });
  const [url] = (await Promise.race([
    once(lines, 'line'),
    ended.then(() => Promise.reject(new Error('the discarding server did not start'))),
  ])) as [string];
  const counting = new URL('/counts', url);
  let cpuBeforeMs = 0;
  return {
    url: new URL(`/${ACCOUNT}`, url).href,
    counts: async () => {
      const counts = (await (await fetch(counting, soon())).json()) as Counts;
      return { ...counts, serverCpuMs: (await cpuMsOf(child.pid!)) - cpuBeforeMs };
    },
    reset: async () => {
      await fetch(counting, { ...soon(), method: 'DELETE' });
      cpuBeforeMs = await cpuMsOf(child.pid!);
    },
    close: async () => {
      child.stdin!.end();
      await ended;
    },
  };
}
