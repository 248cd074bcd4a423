/** Many short runs of one step, by tinybench: the best of them is what the code can do, whatever else the machine was busy with. */
import { Bench, type FnOptions } from 'tinybench';
import type { Lab } from './lab.ts';

/** A row of steps that are measured one after the other and reported together. */
export class Steps {
  readonly #lab: Lab;
  readonly #bench: string;
  readonly #runs: Bench;
  readonly #bytes: Map<string, number> = new Map();

  constructor(lab: Lab, bench: string) {
    this.#lab = lab;
    this.#bench = bench;
    this.#runs = new Bench(lab.smoke ? { time: 10, warmupTime: 0 } : { time: 250, warmupTime: 80 });
  }

  /** `work` is run many times; it works on so many bytes each time. */
  add(step: string, bytes: number, work: () => unknown, options?: FnOptions): void {
    this.#bytes.set(step, bytes);
    this.#runs.add(step, work, options);
  }

  async run(): Promise<void> {
    await this.#runs.run();
    for (const { name, result } of this.#runs.tasks) {
      if (result.state !== 'completed') throw new Error(`${name}: ${'error' in result ? result.error : result.state}`);
      const { min, p50 } = result.latency;
      const bytes = this.#bytes.get(name)!;
      const times = { bestUs: microseconds(min), medianUs: microseconds(p50) };
      this.#lab.report({ type: 'step', bench: this.#bench, step: name, bytes, ...times });
    }
  }
}

/** From milliseconds, in hundredths. */
function microseconds(ms: number): number {
  return Math.round(ms * 100_000) / 100;
}
