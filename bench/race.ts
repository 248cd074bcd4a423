/**
 * A race: several programs do the same work on the same input, in turn, round after round, so that whatever else the machine
 * does hits all of them. What counts is the best round of each (a program is never faster than it is, only slower), and the
 * ratio of two bests, never a time alone.
 */

import type { Lab } from './lab.ts';
import type { Cost } from './measure.ts';
import { missingTool, type Tool } from './tools.ts';

/** What one run came to. */
export interface Outcome extends Cost {
  readonly counts?: Readonly<Record<string, number>>;
}

export interface Contestant {
  readonly name: string;
  /** What a person would type; paths of the bench shortened. */
  readonly command: string;
  /** Without it the contestant is left out, with a reason. */
  readonly tool?: Tool;
  /** Makes what a run needs (an empty repository, say); not measured. */
  readonly prepare?: () => Promise<void>;
  readonly run: () => Promise<Outcome>;
  /** Removes what a run leaves; not measured. */
  readonly clean?: () => Promise<void>;
}

export interface Heat {
  readonly bench: string;
  readonly task: string;
  /** How the input was made. */
  readonly input: string;
  readonly x?: number;
  readonly rounds?: number;
}

/** Runs the contestants in turn and reports each run. */
export async function race(lab: Lab, heat: Heat, contestants: readonly Contestant[]): Promise<void> {
  const { bench, task, input, x } = heat;
  const present = contestants.filter(({ name: contestant, tool }) => {
    const reason = tool === undefined ? undefined : missingTool(tool);
    if (reason !== undefined) lab.report({ type: 'skipped', bench, task, contestant, reason });
    return reason === undefined;
  });
  for (const { tool } of present) if (tool !== undefined) await lab.reportTool(bench, tool);
  for (let round = 1; round <= (heat.rounds ?? lab.rounds); round += 1) {
    for (const { name: contestant, command, prepare, run, clean } of present) {
      await prepare?.();
      try {
        const { wallMs, cpuMs, peakMib, counts = {} } = await run();
        const cost = { wallMs: tenths(wallMs), cpuMs: tenths(cpuMs), peakMib: tenths(peakMib) };
        const place = { bench, task, contestant, round, ...(x === undefined ? {} : { x }) };
        lab.report({ type: 'run', ...place, ...cost, counts, command, input });
      } finally {
        await clean?.();
      }
    }
  }
}

function tenths(value: number): number {
  return Math.round(value * 10) / 10;
}
