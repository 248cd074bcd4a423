/** Helpers to make VHD images in memory, damage them, and read them back. */
import { expect } from 'vitest';
import type { Clock, Ports, Random } from '../../src/ports.ts';
import { type CreateDiskOptions, createDisk } from '../../src/vhd/create-disk.ts';
import { type OpenDiskOptions, openDisk } from '../../src/vhd/open-disk.ts';
import { vhdChecksum } from '../../src/vhd/vhd-footer.ts';
import type { Extent } from '../../src/vhd/virtual-disk.ts';
import { type MemoryFileSystem, memoryFileSystem } from '../support/memory-files.ts';

export const KIB = 1024;
export const MIB: number = 1024 * KIB;

/** Ports over an empty file system in memory; ids count up, time stands still. */
export interface TestPorts {
  readonly files: MemoryFileSystem;
  readonly clock: Clock;
  readonly random: Random;
}

export function testPorts(): TestPorts {
  let counter = 0;
  const clock: Clock = { nowMs: () => Date.UTC(2024, 1, 29), monotonicMs: () => 0, sleep: async () => {} };
  const random: Random = {
    bytes(lengthBytes) {
      counter += 1;
      const bytes = Buffer.alloc(lengthBytes, 0xa5);
      bytes.writeUInt32BE(counter);
      return bytes;
    },
    fraction: () => 0.5,
  };
  return { files: memoryFileSystem(), clock, random };
}

/** Guest bytes to write: where, and what they are filled with. */
export interface Fill {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly value: number;
}

/** Creates a VHD in memory. */
export async function makeVhd(
  ports: TestPorts,
  path: string,
  options: Partial<CreateDiskOptions>,
  fills: readonly Fill[] = [],
): Promise<void> {
  const writer = await createDisk(path, {
    format: 'vhd',
    subformat: 'dynamic',
    virtualSizeBytes: 4 * MIB,
    ports,
    ...options,
  });
  for (const { offset, lengthBytes, value } of fills) await writer.write(Buffer.alloc(lengthBytes, value), offset);
  await writer.finish();
}

/** Changes the bytes of a file in memory; a Buffer that `change` returns takes their place. */
export function edit(ports: TestPorts, path: string, change: (bytes: Buffer) => unknown): void {
  const bytes = Buffer.from(ports.files.get(path)!);
  const changed = change(bytes);
  ports.files.put(path, changed instanceof Buffer ? changed : bytes);
}

/** Makes the checksum of the footer at `offset` right again. */
export function sealFooter(bytes: Buffer, offset: number): void {
  bytes.writeUInt32BE(vhdChecksum(bytes.subarray(offset, offset + 512), 64), offset + 64);
}

/** Changes both footers of a dynamic disk and makes their checksums right again. */
export function editFooters(bytes: Buffer, change: (footer: Buffer) => unknown): void {
  for (const offset of [0, bytes.length - 512]) {
    change(bytes.subarray(offset, offset + 512));
    sealFooter(bytes, offset);
  }
}

/** Changes the dynamic header at 512 and makes its checksum right again. */
export function editHeader(bytes: Buffer, change: (header: Buffer) => unknown): void {
  const header = bytes.subarray(512, 1536);
  change(header);
  header.writeUInt32BE(vhdChecksum(header, 36), 36);
}

/** The whole content of a disk. */
export async function readAll(
  ports: Pick<Ports, 'files'>,
  path: string,
  options: Partial<OpenDiskOptions> = {},
): Promise<Buffer> {
  const disk = await openDisk(path, { ports, ...options });
  const bytes = Buffer.alloc(disk.info.virtualSizeBytes, 0xee);
  await disk.read(bytes, 0);
  await disk.close();
  return bytes;
}

/** What a disk filled like this holds. */
export function filled(sizeBytes: number, fills: readonly Fill[]): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  for (const { offset, lengthBytes, value } of fills) bytes.fill(value, offset, offset + lengthBytes);
  return bytes;
}

/** `kind offset length` of each extent. */
export async function extentList(ports: Pick<Ports, 'files'>, path: string): Promise<readonly string[]> {
  const disk = await openDisk(path, { ports });
  const list: string[] = [];
  for await (const extent of disk.extents(0, disk.info.virtualSizeBytes)) list.push(describeExtent(extent));
  await disk.close();
  return list;
}

function describeExtent({ kind, offset, lengthBytes, depth }: Extent): string {
  return `${kind} ${offset} ${lengthBytes} @${depth}`;
}

/** Whether both hold the same bytes; comparing megabytes with toEqual takes seconds. */
export function expectSame(actual: Uint8Array, expected: Uint8Array): void {
  expect(actual.byteLength).toBe(expected.byteLength);
  const at = Buffer.compare(actual, expected) === 0 ? -1 : actual.findIndex((byte, i) => byte !== expected[i]);
  expect(at, 'offset of the first difference').toBe(-1);
}
