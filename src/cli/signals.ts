/**
 * Signals: the first SIGINT, SIGTERM or SIGHUP aborts the work, which then ends cleanly; the second ends the process at
 * once. SIGUSR1 asks for a line of progress.
 *
 * SIGHUP is taken too, since the runtime resets it to "end the process" even under nohup, and a conversion would leave
 * its partial file behind.
 */
import { BlockferryError } from '../index.ts';

const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export interface SignalActions {
  /** After the first signal. */
  onStop(): void;
  /** After the second one. Does not return. */
  onKill(): never;
  onProgress(): void;
}

export interface HeardSignals {
  /** Aborts with ABORTED. */
  readonly signal: AbortSignal;
  /** Gives SIGHUP another meaning: what runs for years reads its configuration again. */
  readonly onHangup: (listener: () => void) => void;
}

/** Listens from now on. */
export function listenToSignals(actions: SignalActions): HeardSignals {
  const controller = new AbortController();
  let onHangup: (() => void) | undefined;
  for (const name of STOP_SIGNALS) {
    process.on(name, () => {
      if (name === 'SIGHUP' && onHangup) return onHangup();
      if (controller.signal.aborted) actions.onKill();
      actions.onStop();
      controller.abort(
        new BlockferryError('ABORTED', `interrupted by ${name}`, {
          facts: { signal: name },
        }),
      );
    });
  }
  if (process.platform !== 'win32') process.on('SIGUSR1', () => actions.onProgress());
  return {
    signal: controller.signal,
    onHangup: (listener) => {
      onHangup = listener;
    },
  };
}
