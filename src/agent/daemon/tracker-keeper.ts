/**
 * Keeps the tracker of a machine running (`serve`). It is a process of its own that this one starts and never ends: the
 * machine runs on its disks. One that is there already, from before a restart of the agent, is found and watched.
 */
import { isBlockferryError } from '../../errors.ts';
import type { Ports } from '../../ports.ts';
import { ControlClient, controlPath, trackingDirectory } from '../../tracker/index.ts';
import { LocalItem } from '../local-state.ts';
import { withChildSignal } from './child-signal.ts';
import type { AgentHappening, AgentProcesses } from './types.ts';

const FIRST_WAIT_MS = 1000;
const WAIT_MS_MAX = 60_000;

export interface TrackerKeeperOptions {
  readonly name: string;
  readonly home: string;
  readonly listen: string;
  readonly ports: Pick<Ports, 'clock' | 'files'>;
  readonly processes: AgentProcesses;
  readonly tell: (happening: AgentHappening) => void;
}

export class TrackerKeeper {
  readonly #options: TrackerKeeperOptions;
  #wake: AbortController = new AbortController();
  #isHeld = false;

  constructor(options: TrackerKeeperOptions) {
    this.#options = options;
  }

  /** Something became possible that was not: the first copy has ended. */
  wake(): void {
    this.#wake.abort();
  }

  /** Starts none from now on, or as soon as it may. */
  hold(isHeld: boolean): void {
    this.#isHeld = isHeld;
    if (!isHeld) this.wake();
  }

  /** Watches until the signal fires; the tracker outlives it. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options.ports;
    let waitMs = FIRST_WAIT_MS;
    while (!signal.aborted) {
      this.#wake = new AbortController();
      const startedMs = clock.monotonicMs();
      const outcome = await this.#watch(signal);
      if (signal.aborted) return;
      const isNew = outcome !== 'ended' || clock.monotonicMs() - startedMs >= WAIT_MS_MAX;
      if (isNew) waitMs = FIRST_WAIT_MS;
      // Without an item there is nothing to serve: the end of the first copy wakes this.
      await this.#sleep(outcome === 'no-item' ? Number.POSITIVE_INFINITY : waitMs, signal);
      waitMs = Math.min(WAIT_MS_MAX, 2 * waitMs);
    }
  }

  /** One life of the tracker. */
  async #watch(signal: AbortSignal): Promise<'no-item' | 'held' | 'found' | 'ended'> {
    const { name, home, ports } = this.#options;
    try {
      const item = new LocalItem(home, name, ports.files);
      if (!(await item.find()) || !(await item.loadDescription())) return 'no-item';
      const client = await ControlClient.connect(controlPath(trackingDirectory(item.directory)));
      if (!client) return this.#isHeld ? 'held' : await this.#start(signal);
      this.#tell('found', 'it is running already');
      await until(client.closed, signal);
      client.close();
      if (!signal.aborted) this.#tell('ended', 'its connection ended');
      return 'found';
    } catch (error) {
      if (!isBlockferryError(error)) throw error;
      this.#tell('failed', error.message);
      return 'ended';
    }
  }

  async #start(signal: AbortSignal): Promise<'ended'> {
    const { name, home, listen, processes } = this.#options;
    let last = '';
    const onTalk = (line: string): void => {
      const listening = listeningOn(line);
      if (listening !== undefined) {
        this.#tell('started', `listening on ${listening}`);
        return;
      }
      last = line.slice(0, 4096);
      this.#options.tell({ type: 'notice', machine: name, code: 'TRACKER', message: last });
    };
    const ended = processes.track(name, home, listen, onTalk);
    const why = await until(ended, signal);
    if (why !== undefined) this.#tell('ended', last === '' ? why : `${why}: ${last}`);
    return 'ended';
  }

  #tell(what: 'started' | 'found' | 'ended' | 'failed', message: string): void {
    this.#options.tell({ type: 'tracker', machine: this.#options.name, what, message });
  }

  async #sleep(ms: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options.ports;
    await withChildSignal([signal, this.#wake.signal], async (woken) => {
      if (ms === Number.POSITIVE_INFINITY) await until(new Promise<never>(() => {}), woken);
      else await clock.sleep(ms, woken).catch(() => {});
    });
  }
}

/** Where the tracker says that it listens; undefined for any other line. */
function listeningOn(line: string): string | undefined {
  try {
    const { type, listen } = JSON.parse(line) as { readonly type?: unknown; readonly listen?: unknown };
    return type === 'listening' && typeof listen === 'string' ? listen : undefined;
  } catch {
    return undefined;
  }
}

/** `work`, or undefined as soon as the signal fires. */
async function until<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  if (signal.aborted) return undefined;
  let onAbort = (): void => {};
  const aborted = new Promise<undefined>((resolve) => {
    onAbort = () => resolve(undefined);
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
