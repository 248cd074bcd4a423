/**
 * A race: several programs do the same work on the same input, in turn, round after round, so that whatever else the machine
 * does hits all of them. What counts is the best round of each (a program is never faster than it is, only slower), and the
 * ratio of two bests, never a time alone.
 */
import type { Lab } from './lab.ts';
import type { Cost } from './measure.ts';
import type { Bare, RunRecord } from './record.ts';
import { missingTool, type Tool } from './tools.ts';

const REASON_CHARACTERS_MAX = 500;

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

/** Runs the contestants in turn and reports each run. One that fails says so once and is out of the race; the others go on. */
export async function race(lab: Lab, heat: Heat, contestants: readonly Contestant[]): Promise<void> {
  const { bench, task } = heat;
  const running = new Set(contestants);
  for (const contestant of contestants) {
    const { name, tool } = contestant;
    if (tool === undefined) continue;
    const reason = missingTool(tool);
    if (reason === undefined) await lab.reportTool(bench, tool);
    else {
      running.delete(contestant);
      lab.report({ type: 'skipped', bench, task, contestant: name, reason });
    }
  }
  for (let round = 1; round <= (heat.rounds ?? lab.rounds); round += 1) {
    for (const contestant of running) {
      try {
        await runOnce(lab, heat, contestant, round);
      } catch (error) {
        running.delete(contestant);
        lab.report({ type: 'failed', bench, task, contestant: contestant.name, reason: reasonOf(error) });
      }
    }
  }
}

async function runOnce(lab: Lab, heat: Heat, contestant: Contestant, round: number): Promise<void> {
  const { name, command, prepare, run, clean } = contestant;
  try {
    await prepare?.();
    const outcome = await run();
    const { bench, task, input, x } = heat;
    reportRun(
      lab,
      { bench, task, contestant: name, round, command, input, ...(x === undefined ? {} : { x }) },
      outcome,
    );
  } finally {
    await clean?.();
  }
}

/** Reports one run. */
export function reportRun(
  lab: Lab,
  about: Omit<Bare<RunRecord>, 'type' | 'counts' | keyof Cost>,
  { wallMs, cpuMs, peakMib, counts = {} }: Outcome,
): void {
  const cost = { wallMs: tenths(wallMs), cpuMs: tenths(cpuMs), peakMib: tenths(peakMib) };
  lab.report({ type: 'run', ...about, ...cost, counts });
}

/** What went wrong, in one line. */
export function reasonOf(error: unknown): string {
  const { message } = error as Error;
  return message.split('\n').join(' ').slice(0, REASON_CHARACTERS_MAX);
}

function tenths(value: number): number {
  return Math.round(value * 10) / 10;
}
