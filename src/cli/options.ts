/** Options that several commands share, and the parsers of option values. A bad value is a usage error (exit 2). */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { checkChunkBytes, type DiskFormat, FINGERPRINT_ALGORITHMS, type OpenDiskOptions, parseSize } from '../index.ts';
import type { Context } from './context.ts';

const DISK_FORMATS: readonly DiskFormat[] = ['raw', 'vhd', 'vhdx'];

/** `64KiB`, `4M` → bytes. */
export function sizeValue(text: string): number {
  return orInvalid(() => parseSize(text));
}

/** A size that chunks may have. */
export function chunkSizeValue(text: string): number {
  return orInvalid(() => {
    const bytes = parseSize(text);
    checkChunkBytes(bytes);
    return bytes;
  });
}

/** A parser for whole numbers from `min` to `max`. */
export function integerValue(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) {
      throw new InvalidArgumentError(`"${text}" is no whole number from ${min} to ${max}`);
    }
    return value;
  };
}

/** `25%` or `25` → 25; more than 0, at most 100. */
export function percentValue(text: string): number {
  const value = Number(/^(\d+(?:\.\d+)?)%?$/.exec(text)?.[1]);
  if (!(value > 0 && value <= 100)) throw new InvalidArgumentError(`"${text}" is no share; write for example 10%`);
  return value;
}

function orInvalid<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof RangeError) throw new InvalidArgumentError(error.message);
    throw error;
  }
}

/** Gathers the values of an option that may be repeated. */
export function repeated(text: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), text];
}

/** An option with a fixed set of values, which stand in its help as `--flag <a|b>`. */
export function choice(flag: string, description: string, values: readonly string[]): Option {
  return new Option(`${flag} <${values.join('|')}>`, description).choices(values);
}

/** Of the commands that compute plain fingerprints or replicate. */
export function fingerprintOption(flag: string): Option {
  return choice(flag, 'algorithm of the fingerprints (default: xxh128)', FINGERPRINT_ALGORITHMS);
}

/** An option that takes a disk format. */
export function formatOption(flag: string, description: string): Option {
  return choice(flag, description, DISK_FORMATS);
}

/** How a command finds the files of its disk. */
export interface DiskOptions {
  readonly inputFormat?: DiskFormat;
  readonly parentRoot?: readonly string[];
}

/** Adds `--input-format` and `--parent-root`. */
export function withDiskOptions(command: Command): Command {
  return withParentRoot(
    command.addOption(
      formatOption(
        '--input-format',
        'what DISK is, instead of deciding by its content; say raw for a raw disk that you do not trust',
      ),
    ),
  );
}

/** Adds `--parent-root` alone. */
export function withParentRoot(command: Command): Command {
  return command.option(
    '--parent-root <dir>',
    'directory under which parents may lie, may be repeated (default: the directory of DISK)',
    repeated,
  );
}

/** The options of `openDisk` that were asked for. */
export function openOptions(options: DiskOptions, context: Context): OpenDiskOptions {
  const { inputFormat, parentRoot } = options;
  return {
    ports: context.ports,
    ...(inputFormat === undefined ? {} : { format: inputFormat }),
    ...(parentRoot === undefined ? {} : { allowedRoots: parentRoot }),
  };
}

/** Adds the worked example that ends the help of a command. */
export function withExample(command: Command, ...lines: readonly string[]): Command {
  return command.addHelpText('after', `\nExample:\n${lines.map((line) => `  ${line}`).join('\n')}`);
}
