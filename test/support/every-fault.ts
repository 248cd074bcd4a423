/** Single faults: every hit of every failpoint that some work meets, one run each. */
import { isBlockferryError } from '../../src/errors.ts';
import type { FailpointName } from '../../src/ports.ts';
import type { Lab } from './replica-lab.ts';

/** Whether the armed fault was met. */
export async function fails(work: Promise<unknown>): Promise<boolean> {
  try {
    await work;
    return false;
  } catch (error) {
    if (isBlockferryError(error, 'FAILPOINT')) return true;
    throw error;
  }
}

/** The failpoints that `work` meets when nothing fails. */
export async function metBy(lab: Lab, work: () => Promise<unknown>): Promise<ReadonlyMap<FailpointName, number>> {
  lab.arm();
  await work();
  return new Map(lab.hits);
}

/**
 * Every hit of every failpoint, until a run completes; returns the runs that failed, per failpoint. A failpoint that a
 * whole run does not meet at all is left out.
 */
export async function everyFault(
  met: ReadonlyMap<FailpointName, number>,
  run: (name: FailpointName, hit: number) => Promise<boolean>,
): Promise<Partial<Record<FailpointName, number>>> {
  const failures: Partial<Record<FailpointName, number>> = {};
  for (const name of met.keys()) {
    let hit = 1;
    while (await run(name, hit)) hit += 1;
    failures[name] = hit - 1;
  }
  return failures;
}
