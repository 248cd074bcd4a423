/** What the body of every command gets: output, progress, ports, the abort signal and the global options. */
import type { Command } from 'commander';
import type { Ports } from '../index.ts';
import type { ExitCode } from './exit-codes.ts';
import type { Output } from './output.ts';
import type { Progress } from './progress.ts';

/** The options that stand before or behind every command. */
export interface GlobalOptions {
  readonly json?: true;
  readonly quiet?: true;
  readonly verbose?: true;
  readonly color: boolean;
  readonly home?: string;
}

export interface Context {
  readonly output: Output;
  readonly progress: Progress;
  readonly ports: Ports;
  readonly signal: AbortSignal;
  /** From now on SIGHUP calls `listener`, and stops nothing. */
  readonly onHangup: (listener: () => void) => void;
  /** Directory of local state. */
  readonly home: string;
}

/** Runs the body of a command; its exit code, or that of its error, becomes that of the process. */
export type Start = (command: Command, body: (context: Context) => Promise<ExitCode>) => Promise<void>;

/** Adds one command to the program. */
export type AddCommand = (program: Command, start: Start) => void;
