/**
 * Damaged logs, by the hundred thousand: each is read or refused with an error of the source area, soon, in bounded
 * reads; what is read backwards is what is read forwards; and what verifies can be coalesced.
 */
import { expect, it } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import { ChangeLog, coalesceLogs, verifyLog } from '../../src/hrl/index.ts';
import { DISK_BYTES_MAX } from '../../src/limits.ts';
import type { FileSystem, RandomAccessFile } from '../../src/ports.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import {
  type BuiltLogOptions,
  type BuiltWrite,
  buildLog,
  sealLogBlock,
  sealLogHeader,
} from '../support/hrl-builder.ts';
import { type BaseImage, mutate, type Spot } from '../support/mutator.ts';
import { PagedImage } from '../support/paged-image.ts';
import { startWatchdog } from '../support/watchdog.ts';
import { collect, PATH, sectors } from './support.ts';

const seed = numberFromEnvironment('BLOCKFERRY_SEED', 1);
const cases = numberFromEnvironment('BLOCKFERRY_CASES', 100_000);
const CASE_MS_MAX = 1000;
const READ_BYTES_MAX = 1024 * 1024 + 65_536;

function base(name: string, options: Partial<BuiltLogOptions>): BaseImage {
  const write = (i: number): BuiltWrite => ({
    at: (i % 7) * 1024,
    data: sectors(1 + (i % 3), i),
    unchecked: i % 4 === 0,
  });
  const groups = [0, 1, 3, 0, 2, 5].map((count, g) => Array.from({ length: count }, (_, i) => write(g * 8 + i)));
  const { bytes, blocks } = buildLog({ blocks: groups, ...options });
  const metadataBytes = options.metadataBytes ?? 4096;
  const usedBytes = Math.min(metadataBytes, 256);
  const spots: Spot[] = [{ offset: 0, lengthBytes: 128, weight: 6 }];
  for (const { at, dataAt } of blocks) {
    spots.push({ offset: at, lengthBytes: usedBytes, weight: 3 });
    if (options.tailFilled) spots.push({ offset: at + metadataBytes - usedBytes, lengthBytes: usedBytes, weight: 3 });
    if (at > dataAt) spots.push({ offset: dataAt, lengthBytes: at - dataAt, weight: 1 });
  }
  const seal = (image: PagedImage): void => {
    const parts: readonly (readonly [number, number, (part: Buffer) => void])[] = [
      [0, 4096, sealLogHeader],
      ...blocks.map(({ at }) => [at, metadataBytes, (part: Buffer) => sealLogBlock(part, 0, metadataBytes)] as const),
    ];
    for (const [offset, lengthBytes, makeRight] of parts) {
      if (offset + lengthBytes > image.sizeBytes || !image.isTouched(offset, lengthBytes)) continue;
      const part = image.slice(offset, lengthBytes);
      makeRight(part);
      image.write(part, offset);
    }
  };
  return { name, image: PagedImage.of(bytes), spots, seal };
}

const BASES: readonly BaseImage[] = [
  base('closed', {}),
  base('unclosed', { open: true }),
  base('closed, small blocks', { metadataBytes: 512 }),
  base('unclosed, small blocks', { metadataBytes: 512, open: true }),
  base('filled from the tail', { tailFilled: true }),
  base('version 1', { version: 1 }),
];

function filesOf(image: PagedImage): FileSystem {
  const file: Partial<RandomAccessFile> = {
    path: PATH,
    sizeBytes: async () => image.sizeBytes,
    async read(into, position) {
      if (into.byteLength > READ_BYTES_MAX) throw new Error(`a read of ${into.byteLength} bytes`);
      if (!Number.isSafeInteger(position) || position < 0) throw new Error(`a read at ${position}`);
      return image.read(into, position);
    },
    close: async () => {},
  };
  const files: Partial<FileSystem> = { open: async () => file as RandomAccessFile };
  return files as FileSystem;
}

/** `read`, or the code of the refusal. */
async function judge(image: PagedImage, piecesMax: number): Promise<string> {
  try {
    const log = await ChangeLog.open(PATH, { ports: { files: filesOf(image) } });
    const backwards = await collect(log.blocksNewestFirst());
    const { blocks, dataBytes } = await verifyLog(log);
    const forwards = await collect(log.blocks({ marksMax: 2 }));
    if (JSON.stringify(backwards.reverse()) !== JSON.stringify(forwards)) throw new Error('reads otherwise backwards');
    if (blocks !== forwards.length) throw new Error('has another number of blocks');
    let end = 0;
    let coalescedBytes = 0;
    for await (const { byteOffset, lengthBytes, fileOffset } of coalesceLogs([log], { piecesMax })) {
      const isSane = byteOffset >= end && lengthBytes > 0 && fileOffset + lengthBytes <= log.endOffset;
      if (!isSane) throw new Error(`range of ${lengthBytes} at ${byteOffset}, from ${fileOffset}`);
      end = byteOffset + lengthBytes;
      coalescedBytes += lengthBytes;
    }
    if (end > DISK_BYTES_MAX || coalescedBytes > dataBytes) throw new Error('coalesces to more than there is');
    return 'read';
  } catch (error) {
    if (!isBlockferryError(error) || error.area !== 'source') throw error;
    if (error.facts['source'] !== PATH || typeof error.facts['offset'] !== 'number') throw error;
    return error.code;
  }
}

it('damaged logs are read or refused, soon and in bounded memory', {
  timeout: Math.max(300_000, cases * 6),
}, async () => {
  const outcomes: Record<string, number> = {};
  const slow: number[] = [];
  const watchdog = startWatchdog(30_000, `seed ${seed}`);
  let memoryBytesMax = 0;
  try {
    for (let caseNumber = 0; caseNumber < cases; caseNumber += 1) {
      watchdog.alive(caseNumber);
      const dice = new Dice(seed, caseNumber);
      const { image, steps } = mutate(dice.pick(BASES), dice.pick(BASES), dice);
      const piecesMax = dice.oneIn(8) ? 4 : 1000;
      const once = async (): Promise<number> => {
        const start = process.cpuUsage();
        const outcome = await judge(image, piecesMax).catch((error: unknown) => {
          throw new Error(`seed ${seed}, case ${caseNumber} (${steps.join(', ')})`, { cause: error });
        });
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
        // Time of this process: how busy the machine is does not count.
        const { user, system } = process.cpuUsage(start);
        return (user + system) / 1000;
      };
      // A collection of garbage may come in between; what is slow by itself is slow twice.
      if ((await once()) > CASE_MS_MAX && (await once()) > CASE_MS_MAX) slow.push(caseNumber);
      if (caseNumber % 1000 === 0) memoryBytesMax = Math.max(memoryBytesMax, process.memoryUsage.rss());
    }
  } finally {
    await watchdog.stop();
  }
  expect(slow).toEqual([]);
  expect(memoryBytesMax).toBeLessThan(400 * 1024 * 1024);
  // Each way out was taken often: the damage reaches what the checks are for.
  for (const outcome of ['read', 'HRL_HEADER', 'HRL_BLOCK', 'HRL_ENTRY', 'HRL_TORN']) {
    expect(outcomes[outcome] ?? 0, outcome).toBeGreaterThan(cases / 200);
  }
});
