/** `map DISK`: the extents of a disk, as `qemu-img map` shows them. */
import { type MapEntry, mapDisk, openDisk, type VirtualDisk } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { type DiskOptions, openOptions, withDiskOptions, withExample } from './options.ts';
import { type Output, visible } from './output.ts';

export const addMap: AddCommand = (program, start) => {
  const command = program
    .command('map')
    .summary('extents of a disk, in the shape of qemu-img map')
    .description(
      'Lists the extents of a disk in order. With --json one JSON array of the shape that ' +
        '"qemu-img map --output=json" prints; a range that no file of the chain holds has "present": false.',
    )
    .argument('<disk>', 'VHD, VHDX or raw file');
  withExample(withDiskOptions(command), 'blockferry map web1.vhdx --json');
  command.action(async (path: string, options: DiskOptions) => {
    await start(command, async (context) => {
      const disk = await openDisk(path, openOptions(options, context));
      try {
        await print(disk, context.output);
      } finally {
        await disk.close();
      }
      return EXIT.done;
    });
  });
};

async function print(disk: VirtualDisk, { json, stdout }: Output): Promise<void> {
  if (!json) await stdout.text(row('offset', 'length', 'kind', 'mapped to', 'file'));
  let separator = '[';
  for await (const entry of mapDisk(disk)) {
    if (stdout.closed) return;
    await stdout.text(json ? `${separator}${qemuJson(entry)}` : humanRow(entry, disk));
    separator = ',\n';
  }
  if (json) await stdout.text(separator === '[' ? '[]\n' : ']\n');
}

/** The spelling of qemu-img, blanks and all: scripts that cut it with sed exist. */
function qemuJson({ start, length, depth, present, zero, data, offset }: MapEntry): string {
  const place = offset === undefined ? '' : `, "offset": ${offset}`;
  return `{ "start": ${start}, "length": ${length}, "depth": ${depth}, "present": ${present}, "zero": ${zero}, "data": ${data}${place}}`;
}

function humanRow(entry: MapEntry, disk: VirtualDisk): string {
  const { start, length, depth, present, data, offset } = entry;
  const kind = data ? 'data' : present ? 'zero' : 'absent';
  const place = offset === undefined ? '-' : hex(offset);
  return row(hex(start), hex(length), kind, place, present ? visible(disk.info.chain[depth] ?? '') : '-');
}

// A disk may have millions of extents, so the columns are fixed: 64 TiB has 12 hexadecimal digits.
function row(offset: string, length: string, kind: string, place: string, file: string): string {
  return `${offset.padEnd(14)}  ${length.padEnd(14)}  ${kind.padEnd(6)}  ${place.padEnd(14)}  ${file}\n`;
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
