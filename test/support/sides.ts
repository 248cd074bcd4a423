/** A machine with two homes, run by the real program: where it is protected, and where a failover takes it. */
import { execFileSync } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { generateKeyFile, nodePorts, protect, type Session } from '../../dist/index.js';
import { type RunResult, records, runCli } from '../cli/support.ts';
import { contentSha256 } from './disk-content.ts';
import { qemuIo, type RunningTracker, startTracker } from './tracker.ts';

export type Home = 'a' | 'b';
export type Report = Readonly<Record<string, unknown>>;

/** Of a disk; 64 KiB chunks, so 512 of them. */
export const DISK_BYTES: number = 32 << 20;

export interface SidesOptions {
  readonly directory: string;
  readonly url: string;
  readonly layout: 'sealed' | 'raw';
  /** As qemu-img names it; one disk each. */
  readonly formats: readonly ('raw' | 'vhdx' | 'vpc')[];
}

export class Sides {
  readonly directory: string;
  readonly url: string;
  readonly disks: readonly string[];

  private constructor({ directory, url, formats }: SidesOptions) {
    this.directory = directory;
    this.url = url;
    this.disks = formats.map((format, i) => join(directory, `disk${i}.${format === 'vpc' ? 'vhd' : format}`));
  }

  /** A machine that is protected, with something in its disks. */
  static async begin(options: SidesOptions): Promise<Sides> {
    const sides = new Sides(options);
    await mkdir(options.directory, { recursive: true });
    for (const [i, disk] of sides.disks.entries()) {
      const format = options.formats[i]!;
      const size = format === 'vpc' ? ['-o', 'force_size=on'] : [];
      execFileSync('qemu-img', ['create', '-q', '-f', format, ...size, disk, String(DISK_BYTES)]);
      const writes = ['write -P 0x11 0 2M', `write -P 0x${i + 2}2 20M 1M`].flatMap((write) => ['-c', write]);
      execFileSync('qemu-io', ['-f', format, ...writes, disk], { stdio: 'pipe' });
    }
    const { disks, url } = sides;
    const { layout } = options;
    await generateKeyFile(sides.key, nodePorts());
    const keys = [{ type: 'key-file', path: sides.key }] as const;
    await protect(sides.session('a'), { name: 'vm', disks, url, layout, chunkBytes: 64 * 1024, keys });
    return sides;
  }

  get key(): string {
    return join(this.directory, 'vm.key');
  }

  /** Options by which the other home finds the replica. */
  get from(): readonly string[] {
    return ['--from', this.url, '--key-file', this.key];
  }

  home(home: Home): string {
    return join(this.directory, home);
  }

  /** For the library in this process, where a test is about something else: a start of the program costs half a second. */
  session(home: Home): Session {
    return { ports: nodePorts(), home: this.home(home), environment: {}, workers: 1 };
  }

  at(home: Home, args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<RunResult> {
    const [command, ...rest] = args;
    return runCli([command!, ...rest, '--json', '--home', this.home(home)], { env });
  }

  /** Runs a command that has to succeed; its last record. */
  async run(home: Home, args: readonly string[]): Promise<Report> {
    const result = await this.at(home, args);
    expect(result.code, `${home}: ${args.join(' ')}: ${result.stderr}`).toBe(0);
    return records(result).at(-1)!;
  }

  /** Runs a command that has to be refused. */
  async refuse(home: Home, args: readonly string[], code: number, message: string): Promise<void> {
    const result = await this.at(home, args);
    expect(result.code, `${home}: ${args.join(' ')}: ${result.stderr}`).toBe(code);
    expect(result.stderr).toContain(message);
  }

  /** Serves the disks of a home to `guest`, then ends in order. */
  async serve(home: Home, guest: (tracker: RunningTracker) => Promise<void>): Promise<void> {
    const tracker = await startTracker('vm', this.home(home));
    try {
      await guest(tracker);
    } finally {
      expect(await tracker.stop(), tracker.talk()).toBe(0);
    }
  }

  /** Every disk gets these writes, flushed. */
  async write(tracker: RunningTracker, writes: readonly string[]): Promise<void> {
    for (const i of this.disks.keys()) await qemuIo(tracker.uri(`d${i}`), [...writes, 'flush']);
  }

  /** SHA-256 of what a guest reads of each disk. */
  async content(paths: readonly string[] = this.disks): Promise<readonly unknown[]> {
    const hashes: unknown[] = [];
    for (const path of paths) hashes.push(await contentSha256(path));
    return hashes;
  }

  /** Where a failover into this folder puts the disks. */
  brought(out: string, extension: string): readonly string[] {
    return this.disks.map((_, i) => join(out, `disk${i}.${extension}`));
  }
}

/** A number of each disk of a report, added up. */
export function sum(report: Report, field: string): number {
  return (report['disks'] as Report[]).reduce((total, disk) => total + Number(disk[field]), 0);
}
