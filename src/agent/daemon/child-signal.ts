/**
 * A signal that lives no longer than one piece of work. AbortSignal.any leaves a trace in each of its sources for as long as they
 * live (Node 20), and so does every signal that is made of its result: in an agent that runs for years, that is a leak. This one
 * takes its listeners away, and what is made of it goes with it.
 */
export interface ChildSignal {
  readonly signal: AbortSignal;
  abort(reason: unknown): void;
  /** The work is over. */
  release(): void;
}

/** A signal that fires when one of `parents` does, until it is released. */
export function childSignal(...parents: readonly AbortSignal[]): ChildSignal {
  const controller = new AbortController();
  const links = parents.map((parent) => {
    const onAbort = (): void => controller.abort(parent.reason);
    if (parent.aborted) onAbort();
    else parent.addEventListener('abort', onAbort, { once: true });
    return { parent, onAbort };
  });
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    release: () => {
      for (const { parent, onAbort } of links) parent.removeEventListener('abort', onAbort);
    },
  };
}

/** Runs `work` with a signal of its own. */
export async function withChildSignal<T>(
  parents: readonly AbortSignal[],
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const child = childSignal(...parents);
  try {
    return await work(child.signal);
  } finally {
    child.release();
  }
}
