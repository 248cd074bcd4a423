/**
 * What a bench works with: directories, inputs, the store, the size of the run, and where its records go. Targets lie in memory
 * (tmpfs) where there is any, so that no run waits for a disk that another one keeps busy.
 */
import { accessSync, constants, existsSync, statfsSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { withDirectory } from './guard.ts';
import type { Bare, BenchRecord, Circumstances } from './record.ts';
import { type DiscardingStore, startDiscardingStore } from './store.ts';
import { type Tool, toolVersion } from './tools.ts';

export const KIB = 1024;
export const MIB: number = 1024 * KIB;
export const GIB: number = 1024 * MIB;

export interface LabOptions {
  readonly rounds: number;
  /** Sizes that take seconds and say nothing, to see that everything runs. */
  readonly smoke: boolean;
  readonly circumstances: Circumstances;
  readonly onRecord: (record: BenchRecord) => void;
}

const MEMORY = '/dev/shm';
/** What the largest row keeps there, and room to spare. In a container there may be 64 MiB. */
const MEMORY_BYTES_MIN = 8 * GIB;

function memoryDirectory(): string {
  try {
    accessSync(MEMORY, constants.W_OK);
    const { bavail, bsize } = statfsSync(MEMORY);
    return bavail * bsize >= MEMORY_BYTES_MIN ? MEMORY : tmpdir();
  } catch {
    return tmpdir();
  }
}

export class Lab {
  readonly rounds: number;
  readonly smoke: boolean;
  /** Inputs stay here from run to run. */
  readonly inputs: string = join(tmpdir(), 'blockferry-bench-inputs');
  /** On tmpfs where there is one; of this run alone. */
  readonly targets: string;
  readonly store: DiscardingStore;
  readonly #options: LabOptions;
  readonly #reported: Set<string> = new Set();
  #serial = 0;

  private constructor(options: LabOptions, targets: string, store: DiscardingStore) {
    this.#options = options;
    this.rounds = options.rounds;
    this.smoke = options.smoke;
    this.targets = targets;
    this.store = store;
  }

  /** Gives `body` a lab and tidies up after it. */
  static async open(options: LabOptions, body: (lab: Lab) => Promise<void>): Promise<void> {
    await withDirectory(memoryDirectory(), 'blockferry-bench-', async (targets) => {
      const store = await startDiscardingStore();
      try {
        const lab = new Lab(options, targets, store);
        await mkdir(lab.inputs, { recursive: true });
        await body(lab);
      } finally {
        await store.close();
      }
    });
  }

  /** Removes what a bench has left among the targets. */
  async clear(): Promise<void> {
    for (const name of await readdir(this.targets)) await removeTree(join(this.targets, name));
  }

  /** A size of the full run, or `smokeBytes` in a smoke run. */
  size(fullBytes: number, smokeBytes: number): number {
    return this.smoke ? smokeBytes : fullBytes;
  }

  /** A path among the targets that nothing has used. */
  target(name: string): string {
    this.#serial += 1;
    return join(this.targets, `${name}-${this.#serial}`);
  }

  /** A place in the discarding store that nothing has used. */
  discarding(): string {
    this.#serial += 1;
    return `${this.store.url}/bench/run-${this.#serial}`;
  }

  report(record: Bare): void {
    this.#options.onRecord({ ...record, ...this.#options.circumstances } as BenchRecord);
  }

  /** Reports the version of a tool, once a bench. */
  async reportTool(bench: string, name: Tool): Promise<void> {
    if (this.#reported.has(`${bench} ${name}`)) return;
    this.#reported.add(`${bench} ${name}`);
    this.report({ type: 'tool', bench, name, version: await toolVersion(name) });
  }
}

/** Removes what a run left among the targets. */
export async function removeTree(path: string): Promise<void> {
  if (existsSync(path)) await rm(path, { recursive: true, force: true });
}
