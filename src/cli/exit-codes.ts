/** Exit codes: the one place where an error or a result becomes a number. docs/cli.md and `--help` print this table. */
import { type ErrorArea, isBlockferryError } from '../index.ts';

export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  differences: 3,
  source: 4,
  store: 5,
  lock: 6,
  key: 7,
  replica: 8,
  interrupted: 130,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** What each code says, in order. */
export const EXIT_MEANINGS: readonly (readonly [ExitCode, string])[] = [
  [EXIT.done, 'done'],
  [EXIT.failed, 'failed'],
  [EXIT.usage, 'usage: the command line or the request is wrong'],
  [EXIT.differences, 'finished, with differences or a partial result'],
  [EXIT.source, 'a source disk or log is invalid'],
  [EXIT.store, 'the store stayed unreachable'],
  [EXIT.lock, 'locked or fenced by another writer'],
  [EXIT.key, 'key or authentication'],
  [EXIT.replica, 'the replica is damaged'],
  [EXIT.interrupted, 'interrupted; a later run resumes'],
];

const EXIT_OF_AREA: Readonly<Record<ErrorArea, ExitCode>> = {
  usage: EXIT.usage,
  source: EXIT.source,
  store: EXIT.store,
  lock: EXIT.lock,
  key: EXIT.key,
  replica: EXIT.replica,
  aborted: EXIT.interrupted,
  failed: EXIT.failed,
};

/** The exit code of a run that ended with `error`. */
export function exitCodeOfError(error: unknown): ExitCode {
  return isBlockferryError(error) ? EXIT_OF_AREA[error.area] : EXIT.failed;
}

/** The exit code of `check`. */
export function exitCodeOfFaults(faults: number): ExitCode {
  return faults === 0 ? EXIT.done : EXIT.source;
}

/** The exit code of `verify`: damage weighs more than a difference from the live disk. */
export function exitCodeOfVerify(damaged: number, sourceDifferences: number): ExitCode {
  if (damaged > 0) return EXIT.replica;
  return sourceDifferences > 0 ? EXIT.differences : EXIT.done;
}
