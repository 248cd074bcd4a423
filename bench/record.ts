/**
 * Records of the bench: one JSON object a line, each with the machine and the commit that it belongs to, so that a line says
 * what it is wherever it is found.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { arch, cpus, loadavg, release, totalmem } from 'node:os';
import type { Cost } from './measure.ts';

/** What holds for all records of one run of the bench. */
export interface Circumstances {
  /** ISO 8601, UTC, to the day and minute. */
  readonly time: string;
  readonly commit: string;
  readonly machine: string;
  /** Of the last minute before the run: what else the machine did. */
  readonly load: number;
}

/** One run of one contestant. */
export interface RunRecord extends Circumstances, Cost {
  readonly type: 'run';
  readonly bench: string;
  /** Which of several tasks of a bench. */
  readonly task: string;
  readonly contestant: string;
  readonly round: number;
  /** What a person would type. */
  readonly command: string;
  /** How the input was made. */
  readonly input: string;
  /** What a series is drawn against. */
  readonly x?: number;
  /** Anything else that was counted. */
  readonly counts: Readonly<Record<string, number>>;
}

/** Something that did not run here. */
export interface SkippedRecord extends Circumstances {
  readonly type: 'skipped';
  readonly bench: string;
  readonly task: string;
  readonly contestant: string;
  readonly reason: string;
}

/** Something that went wrong: one contestant of a race, or a whole bench. */
export interface FailedRecord extends Circumstances {
  readonly type: 'failed';
  readonly bench: string;
  readonly task?: string;
  readonly contestant?: string;
  readonly reason: string;
}

/** What a step of the kernel, or one call, takes: the best and the median of many. */
export interface StepRecord extends Circumstances {
  readonly type: 'step';
  readonly bench: string;
  readonly step: string;
  /** Bytes that a step works on; 0 for one that has none. */
  readonly bytes: number;
  readonly bestUs: number;
  readonly medianUs: number;
}

/** A program of others that ran. */
export interface ToolRecord extends Circumstances {
  readonly type: 'tool';
  readonly bench: string;
  readonly name: string;
  readonly version: string;
}

export type BenchRecord = RunRecord | StepRecord | SkippedRecord | FailedRecord | ToolRecord;

/** A record as a bench makes it, before the circumstances are added. */
export type Bare<T extends BenchRecord = BenchRecord> = T extends BenchRecord ? Omit<T, keyof Circumstances> : never;

/** The commit of a checkout, and whether it is all that runs. */
function commitOf(checkout: string): string {
  const git = (...args: readonly string[]): string =>
    execFileSync('git', ['-C', checkout, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    const changed = git('status', '--porcelain', '--', 'src', 'bench', 'package.json') === '' ? '' : ' with changes';
    return `${git('rev-parse', '--short=12', 'HEAD')}${changed}`;
  } catch {
    return 'unknown';
  }
}

/** Of this machine, this checkout and this minute. */
export function circumstances(checkout: string): Circumstances {
  const [processor] = cpus();
  const memoryGib = Math.round(totalmem() / 1024 ** 3);
  const system = `${process.platform} ${release()} ${arch()}`;
  return {
    time: `${new Date().toISOString().slice(0, 16)}Z`,
    commit: commitOf(checkout),
    machine: `${cpus().length} × ${processor?.model.trim()}, ${memoryGib} GiB, ${system}, Node ${process.versions.node}`,
    load: Math.round(100 * loadavg()[0]!) / 100,
  };
}

export function parseRecords(text: string): readonly BenchRecord[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as BenchRecord);
}

export function formatRecords(records: readonly BenchRecord[]): string {
  return records.map((record) => `${JSON.stringify(record)}\n`).join('');
}

/** The records of a file; none if it does not exist. */
export function readRecords(path: string): readonly BenchRecord[] {
  try {
    return parseRecords(readFileSync(path, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
