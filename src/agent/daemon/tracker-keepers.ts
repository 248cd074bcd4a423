/** The trackers of all machines that have `serve`, as the configuration of the moment says. */
import type { Ports } from '../../ports.ts';
import { TrackerKeeper } from './tracker-keeper.ts';
import type { AgentHappening, AgentProcesses, MachineConfig } from './types.ts';

export interface TrackerKeepersOptions {
  readonly home: string;
  readonly ports: Ports;
  readonly processes: AgentProcesses | undefined;
  readonly tell: (happening: AgentHappening) => void;
}

interface Kept {
  readonly keeper: TrackerKeeper;
  readonly listen: string;
  readonly stop: AbortController;
  readonly ended: Promise<void>;
}

export class TrackerKeepers {
  readonly #options: TrackerKeepersOptions;
  readonly #kept: Map<string, Kept> = new Map();
  /** Also of machines that a new configuration gives a tracker meanwhile. */
  readonly #held: Set<string> = new Set();

  constructor(options: TrackerKeepersOptions) {
    this.#options = options;
  }

  /** Watches over these machines from now on. A tracker that is not among them any more runs on, unwatched. */
  keep(machines: readonly MachineConfig[]): void {
    const wanted = new Map(machines.flatMap(({ name, serve }) => (serve ? [[name, serve.listen] as const] : [])));
    for (const [name, { listen, stop }] of this.#kept) {
      if (wanted.get(name) === listen) continue;
      stop.abort();
      this.#kept.delete(name);
      if (!wanted.has(name)) {
        this.#notice(
          name,
          'its tracker is not watched any more; stop the machine, then the tracker, when it is not needed',
        );
      }
    }
    for (const [name, listen] of wanted) if (!this.#kept.has(name)) this.#start(name, listen);
  }

  wake(name: string): void {
    this.#kept.get(name)?.keeper.wake();
  }

  /** Keeps the tracker of a machine from being started, or lets it be; one that runs is left alone. */
  hold(name: string, isHeld: boolean): void {
    if (isHeld) this.#held.add(name);
    else this.#held.delete(name);
    this.#kept.get(name)?.keeper.hold(isHeld);
  }

  /** Ends watching; the trackers run on. */
  async close(): Promise<void> {
    for (const { stop } of this.#kept.values()) stop.abort();
    await Promise.all([...this.#kept.values()].map(({ ended }) => ended));
  }

  #start(name: string, listen: string): void {
    const { processes, ...options } = this.#options;
    if (!processes) return;
    const keeper = new TrackerKeeper({ ...options, name, listen, processes });
    if (this.#held.has(name)) keeper.hold(true);
    const stop = new AbortController();
    const ended = keeper.run(stop.signal).catch((error: unknown) => this.#notice(name, String(error)));
    this.#kept.set(name, { keeper, listen, stop, ended });
  }

  #notice(machine: string, message: string): void {
    this.#options.tell({ type: 'notice', machine, code: 'TRACKER', message });
  }
}
