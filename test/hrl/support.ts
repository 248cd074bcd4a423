/** What the tests of logs share: ports in memory, a log opened from bytes, its content as lists and as a disk. */
import { ChangeLog, type LogBlock, type LogEntry } from '../../src/hrl/index.ts';
import type { Ports } from '../../src/ports.ts';
import { Dice } from '../support/dice.ts';
import { type MemoryFileSystem, memoryFileSystem } from '../support/memory-files.ts';

export const PATH = '/disks/web1.hrl';
export const SECTOR = 512;

export interface TestPorts {
  readonly files: MemoryFileSystem;
  readonly clock: Ports['clock'];
  readonly random: Ports['random'];
  readonly failpoint: Ports['failpoint'];
}

/** Ports of which the clock stands still at `nowMs`. */
export function testPorts(nowMs: number = Date.UTC(2024, 0, 1)): TestPorts {
  const dice = new Dice(1);
  const files = memoryFileSystem();
  files.put('/disks/web1.vhdx', new Uint8Array(0));
  return {
    files,
    clock: { nowMs: () => nowMs, monotonicMs: () => 0, sleep: async () => {} },
    random: { bytes: (lengthBytes) => dice.bytes(lengthBytes), fraction: () => dice.next() / 2 ** 32 },
    failpoint: () => {},
  };
}

/** A log in memory, open. */
export async function openBytes(bytes: Uint8Array, path: string = PATH): Promise<ChangeLog> {
  const files = memoryFileSystem();
  files.put(path, bytes);
  return await ChangeLog.open(path, { ports: { files } });
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** All entries in the order in which they were written. */
export async function entriesOf(log: ChangeLog): Promise<LogEntry[]> {
  return (await collect<LogBlock>(log.blocks())).flatMap(({ entries }) => entries);
}

/** Plays a log forwards, one write after the other, in the plainest way there is. */
export async function playForward(log: ChangeLog, disk: Buffer): Promise<void> {
  for (const { byteOffset, dataLength, fileOffset } of await entriesOf(log)) {
    const data = Buffer.alloc(dataLength);
    await log.read(data, fileOffset);
    data.copy(disk, byteOffset);
  }
}

/** `sectors` sectors that tell what wrote them. */
export function sectors(count: number, mark: number): Buffer {
  return Buffer.from(Uint8Array.from({ length: count * SECTOR }, (_, i) => (i * 7 + mark * 31 + (i >>> 8)) & 0xff));
}
