/** `convert DISK OUT`: the content of a disk as another image, or raw on stdout. */
import { isatty } from 'node:tty';
import {
  BlockferryError,
  type ConvertReport,
  convertDisk,
  createDisk,
  type DiskFormat,
  openDisk,
  streamDisk,
  type VirtualDisk,
} from '../index.ts';
import type { AddCommand, Context } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { formatBytes } from './format.ts';
import { choice, type DiskOptions, formatOption, openOptions, withDiskOptions, withExample } from './options.ts';

interface Options extends DiskOptions {
  readonly format?: DiskFormat;
  readonly subformat?: 'fixed' | 'dynamic';
}

interface Target {
  readonly path: string;
  readonly format: DiskFormat;
  readonly subformat: 'fixed' | 'dynamic';
}

export const addConvert: AddCommand = (program, start) => {
  const command = program
    .command('convert')
    .summary('export a disk as raw, VHD or VHDX; "-" streams raw to stdout')
    .description(
      'Writes the content of a disk, its parents folded in, into a new image. Holes and runs of zeros stay holes where ' +
        'format and file system allow. OUT must not exist; it appears only when it is complete. A VHD is rounded up to ' +
        'a whole MiB, as Azure demands. OUT "-" streams the raw content to stdout.',
    )
    .argument('<disk>', 'VHD, VHDX or raw file')
    .argument('<out>', 'file to make, or - for stdout')
    .addOption(formatOption('--format', 'format of OUT (default: by the ending of its name; raw for -)'))
    .addOption(
      choice('--subformat', 'whether OUT grows with its data (default: dynamic; raw is always fixed)', [
        'fixed',
        'dynamic',
      ]),
    );
  withExample(withDiskOptions(command), 'blockferry convert web1.vhdx web1.vhd --format vhd --subformat fixed');
  command.action(async (path: string, out: string, options: Options) => {
    await start(command, async (context) => {
      if (out === '-') context.output.claimStdout();
      const target = resolveTarget(out, options);
      const disk = await openDisk(path, openOptions(options, context));
      try {
        if (out === '-') await toStdout(disk, context);
        else await toImage(disk, target, context);
      } finally {
        await disk.close();
      }
      return EXIT.done;
    });
  });
};

function resolveTarget(out: string, options: Options): Target {
  const format = options.format ?? formatByName(out);
  const subformat = options.subformat ?? (format === 'raw' ? 'fixed' : 'dynamic');
  if (out === '-' && format !== 'raw') {
    throw new BlockferryError('USAGE', `a ${format} cannot be streamed: its tables are written last`, {
      hint: 'name a file, or leave out --format for raw',
    });
  }
  if (out === '-' && isatty(1)) {
    throw new BlockferryError('USAGE', 'stdout is a terminal, which is no place for the bytes of a disk', {
      hint: 'redirect it to a file or a pipe',
    });
  }
  return { path: out, format, subformat };
}

function formatByName(out: string): DiskFormat {
  if (out === '-') return 'raw';
  const ending = /\.(vhdx?|raw|img)$/i.exec(out)?.[1]?.toLowerCase();
  if (ending === 'vhd' || ending === 'vhdx') return ending;
  if (ending !== undefined) return 'raw';
  throw new BlockferryError('USAGE', `${out}: its name does not tell the format`, {
    hint: 'say --format raw, vhd or vhdx',
  });
}

async function toImage(disk: VirtualDisk, target: Target, context: Context): Promise<void> {
  const { info } = disk;
  const { path, format, subformat } = target;
  if (info.logicalSectorBytes !== 512 && format !== 'vhdx') {
    context.output.note(
      `the disk has sectors of ${info.logicalSectorBytes} bytes, a ${format} has 512: a guest may not find its partitions`,
    );
  }
  const writer = await createDisk(path, {
    format,
    subformat,
    virtualSizeBytes: info.virtualSizeBytes,
    ...(format === 'vhdx' ? sectors(disk) : {}),
    ports: context.ports,
  });
  const report = await convertDisk(disk, writer, toolOptions(context));
  await context.output.result({ type: 'convert', path, format, subformat, ...report }, () => summary(path, report));
}

function sectors(disk: VirtualDisk): {
  readonly logicalSectorBytes: 512 | 4096;
  readonly physicalSectorBytes: 512 | 4096;
} {
  const size = (bytes: number): 512 | 4096 => (bytes === 512 ? 512 : 4096);
  return {
    logicalSectorBytes: size(disk.info.logicalSectorBytes),
    physicalSectorBytes: size(disk.info.physicalSectorBytes),
  };
}

async function toStdout(disk: VirtualDisk, context: Context): Promise<void> {
  const { output } = context;
  const readerGone = new AbortController();
  try {
    const report = await streamDisk(
      disk,
      async (bytes) => {
        await output.stdout.bytes(bytes);
        if (output.stdout.closed) readerGone.abort();
        readerGone.signal.throwIfAborted();
      },
      toolOptions(context),
    );
    output.detail(summary('stdout', report));
  } catch (error) {
    // A reader that has seen enough (head, cmp) is no failure of ours.
    if (!readerGone.signal.aborted) throw error;
  }
}

function toolOptions({ signal, progress }: Context): Parameters<typeof streamDisk>[2] {
  return { signal, onProgress: (state) => progress.update({ title: 'convert', ...state }) };
}

function summary(path: string, { virtualSizeBytes, readBytes, writtenBytes }: ConvertReport): string {
  return `${path}: ${formatBytes(virtualSizeBytes)}, read ${formatBytes(readBytes)}, wrote ${formatBytes(writtenBytes)}`;
}
