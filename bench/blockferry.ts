/** Our own program as a user runs it: the built command line, with a home of its own. */
import { existsSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { type Command, type Measured, measure } from './measure.ts';
import { CONNECTION_STRING } from './store.ts';

/** The checkout that this file belongs to, whether compiled (build/bench) or not (bench). */
export const CHECKOUT: string = checkout(import.meta.dirname);

function checkout(directory: string): string {
  return existsSync(join(directory, 'package.json')) ? resolve(directory) : checkout(dirname(directory));
}

const PROGRAM = join(CHECKOUT, 'dist/cli/main.js');

/** The last record that a run has printed: its report. */
export interface Reported extends Measured {
  readonly report: Readonly<Record<string, unknown>>;
}

/** An item in a home of its own. */
export class Ferry {
  readonly #home: string;
  readonly #key: string;

  private constructor(home: string) {
    this.#home = home;
    this.#key = join(home, 'key');
  }

  /** Makes the home at `directory`, which is removed first. */
  static async make(directory: string): Promise<Ferry> {
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    const ferry = new Ferry(directory);
    await measure(ferry.command('keygen', ferry.#key));
    return ferry;
  }

  /** What starts a command of ours. */
  command(...args: readonly string[]): Command {
    if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing: run "npm run build" first`);
    return [process.execPath, PROGRAM, ...args, '--json', '--home', this.#home];
  }

  /** Runs a command of ours and gives what it cost, and its report. */
  async run(...args: readonly string[]): Promise<Reported> {
    const env = { AZURE_STORAGE_CONNECTION_STRING: CONNECTION_STRING };
    const measured = await measure(this.command(...args), { env });
    const last = measured.stdout.trimEnd().split('\n').at(-1) ?? '';
    return { ...measured, report: JSON.parse(last) as Readonly<Record<string, unknown>> };
  }

  protect(disks: readonly string[], url: string, ...options: readonly string[]): Promise<Reported> {
    return this.run('protect', 'vm', ...disks, '--to', url, '--key-file', this.#key, ...options);
  }
}

/** The sum of a number over the disks of a report. */
export function sumOfDisks(report: Readonly<Record<string, unknown>>, field: string): number {
  const disks = report['disks'] as readonly Readonly<Record<string, unknown>>[];
  return disks.reduce((sum, disk) => sum + Number(disk[field]), 0);
}
