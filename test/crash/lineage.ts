/**
 * One protected disk over many crashes: a raw disk that changes, runs of the real program that are killed, and the check
 * that whatever the replica calls its newest point is, byte for byte, the content it was taken of.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { failover, nodePorts, points, type Session } from '../../dist/index.js';
import { finished, type RunResult, startCli } from '../cli/support.ts';
import { Dice } from '../support/dice.ts';

const MIB = 1024 * 1024;

export interface LineageOptions {
  readonly url: (directory: string) => string;
  readonly layout: 'sealed' | 'raw';
  readonly seed: number;
  readonly diskMib: number;
}

export interface Killed {
  readonly result: RunResult;
  /** Whether it was our signal that ended it. */
  readonly killed: boolean;
}

export class Lineage {
  readonly directory: string;
  readonly url: string;
  readonly #options: LineageOptions;
  readonly dice: Dice;
  /** SHA-256 of the disk as each point has it. */
  readonly #contents: Map<string, string> = new Map();
  #current = '';

  static async begin(options: LineageOptions): Promise<Lineage> {
    const directory = await mkdtemp(join(tmpdir(), 'blockferry-crash-'));
    const lineage = new Lineage(directory, options);
    await lineage.#fill();
    return lineage;
  }

  private constructor(directory: string, options: LineageOptions) {
    this.directory = directory;
    this.url = options.url(directory);
    this.#options = options;
    this.dice = new Dice(options.seed);
  }

  get disk(): string {
    return join(this.directory, 'vm.raw');
  }

  get home(): string {
    return join(this.directory, 'home');
  }

  end(): Promise<void> {
    return rm(this.directory, { recursive: true, force: true });
  }

  /** Two thirds data (half of it compressible), one third hole. */
  async #fill(): Promise<void> {
    const file = await open(this.disk, 'wx');
    await file.truncate(this.#options.diskMib * MIB);
    for (let at = 0; at < this.#options.diskMib; at += 1) {
      if (at % 3 !== 2) await file.write(this.#bytes(MIB, at % 3 === 0), 0, MIB, at * MIB);
    }
    await file.close();
    await this.#note();
  }

  /** Scattered small writes, a run of new data, a run of zeros. */
  async change(): Promise<void> {
    const file = await open(this.disk, 'r+');
    const sectors = (this.#options.diskMib * MIB) / 4096;
    for (let i = 0; i < 100; i += 1) {
      await file.write(this.#bytes(4096, false), 0, 4096, this.dice.below(sectors) * 4096);
    }
    const place = (lengthMib: number): number => this.dice.below(this.#options.diskMib - lengthMib) * MIB;
    await file.write(this.#bytes(8 * MIB, true), 0, 8 * MIB, place(8));
    await file.write(Buffer.alloc(4 * MIB), 0, 4 * MIB, place(4));
    await file.close();
    await this.#note();
  }

  async #note(): Promise<void> {
    this.#current = createHash('sha256')
      .update(await readFile(this.disk))
      .digest('hex');
  }

  #bytes(lengthBytes: number, compressible: boolean): Buffer {
    const bytes = Buffer.alloc(lengthBytes);
    const step = compressible ? 64 : 4;
    for (let i = 0; i < lengthBytes; i += step) bytes.writeUInt32LE(this.dice.next(), i);
    return bytes;
  }

  #arguments(verb: 'protect' | 'resync'): string[] {
    const common = ['--home', this.home, '--json', '--workers', '1'];
    if (verb === 'resync') return ['resync', 'vm', ...common];
    const { layout } = this.#options;
    return ['protect', 'vm', this.disk, '--to', this.url, '--layout', layout, '--chunk-size', '64KiB', ...common];
  }

  /** Runs protect or resync to its end, or to a kill -9 after `killAfterMs`, or to an armed failpoint. */
  async run(
    verb: 'protect' | 'resync',
    { killAfterMs, failpoints }: { readonly killAfterMs?: number; readonly failpoints?: string } = {},
  ): Promise<Killed> {
    const env = failpoints === undefined ? {} : { BLOCKFERRY_FAILPOINTS: failpoints };
    const child = startCli(this.#arguments(verb), { env });
    const timer = killAfterMs === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), killAfterMs);
    const result = await finished(child);
    clearTimeout(timer);
    return { result, killed: result.signal === 'SIGKILL' };
  }

  #session(): Session {
    return { ports: nodePorts(), home: join(this.directory, 'elsewhere'), environment: {}, workers: 1 };
  }

  #reference() {
    const key = join(this.home, 'items', 'vm', 'vm.key');
    return { name: 'vm', url: this.url, keys: [{ type: 'key-file' as const, path: key }] };
  }

  /** The ids of all points; none while nothing was committed. */
  async points(): Promise<readonly string[]> {
    try {
      return (await points(this.#session(), this.#reference())).map(({ id }) => id);
    } catch (error) {
      if ((error as { code?: string }).code === 'REPLICA_NOT_FOUND') return [];
      // Killed before the key file was made: then nothing was committed either.
      if ((error as { code?: string }).code === 'KEY_MISSING') return [];
      throw error;
    }
  }

  /**
   * Restores the newest point from the store and a key alone, and compares it. A point that is new since the last call
   * must have the content of the disk now.
   */
  async check(): Promise<'no point' | 'same'> {
    const ids = await this.points();
    const newest = ids.at(-1);
    if (newest === undefined) return 'no point';
    if (!this.#contents.has(newest)) this.#contents.set(newest, this.#current);
    const outDirectory = join(this.directory, 'out');
    const { disks } = await failover(this.#session(), this.#reference(), {
      point: newest,
      outDirectory,
      format: 'raw',
    });
    const restored = createHash('sha256')
      .update(await readFile(disks[0]!.path))
      .digest('hex');
    await rm(outDirectory, { recursive: true });
    if (restored !== this.#contents.get(newest)) {
      throw new Error(`point ${newest} restored ${restored}, was taken of ${this.#contents.get(newest)}`);
    }
    return 'same';
  }

  /** Whether the newest point is that of the disk as it is now. */
  async isCurrent(): Promise<boolean> {
    await this.check();
    const newest = (await this.points()).at(-1);
    return newest !== undefined && this.#contents.get(newest) === this.#current;
  }
}
