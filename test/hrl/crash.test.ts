/**
 * Power cuts of the writer, after every file operation, with any part of what was not synced lost: what was synced is
 * recovered. Where a sync is left out, something is lost: so the test would notice.
 */
import { describe, expect, it } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import { ChangeLog, LogWriter, verifyLog } from '../../src/hrl/index.ts';
import type { Random } from '../../src/ports.ts';
import { type CrashFileSystem, crashFileSystem } from '../support/crash-files.ts';
import { Dice } from '../support/dice.ts';
import { entriesOf, PATH, sectors, testPorts } from './support.ts';

const NEXT = '/disks/web1.1.hrl';

/** What the writers of one run were told, and what they promised. */
interface Promises {
  readonly written: { readonly path: string; readonly at: number; readonly data: Buffer }[];
  /** For each log that is durable: how many of its writes are. */
  readonly durable: Map<string, number>;
  readonly closed: Set<string>;
}

/** Two logs, appended to in groups, with a rotation between. Ends early when the power goes. */
async function run(files: CrashFileSystem, dice: Dice, promises: Promises): Promise<void> {
  const ports = { ...testPorts(), files };
  let path = PATH;
  let count = 0;
  let writer = await LogWriter.create(path, { ports });
  promises.durable.set(path, 0);
  const append = async (): Promise<void> => {
    const group = Array.from({ length: dice.between(1, 4) }, () => {
      const data = sectors(dice.between(1, 12), dice.below(256));
      return { path, at: dice.below(100) * 512, data };
    });
    promises.written.push(...group);
    await writer.append(group.map(({ at, data }) => ({ byteOffset: at, bytes: data })));
    count += group.length;
  };
  const close = async (): Promise<void> => {
    const total = count;
    await writer.close();
    promises.durable.set(path, total);
    promises.closed.add(path);
  };
  for (let i = 0; i < 10; i += 1) {
    await append();
    if (dice.oneIn(2)) {
      const synced = count;
      await writer.sync();
      promises.durable.set(path, synced);
    }
    if (i === 5) {
      const next = await writer.rotate(NEXT);
      await close();
      [path, writer, count] = [NEXT, next, 0];
      promises.durable.set(path, 0);
    }
  }
  await close();
}

/** Cuts the power behind `stopAt` operations; whether a promise was broken. Throws if anything else is wrong. */
async function breaksPromise(
  seed: number,
  stopAt: number,
  ignoreSyncOf: RegExp | undefined,
  random: Random,
): Promise<boolean> {
  const files = crashFileSystem(
    new Map([['/disks/web1.vhdx', new Uint8Array(0)]]),
    ignoreSyncOf === undefined ? {} : { ignoreSyncOf },
  );
  files.stopAt = stopAt;
  const promises: Promises = { written: [], durable: new Map(), closed: new Set() };
  await run(files, new Dice(seed), promises).catch((error: unknown) => {
    if (!isBlockferryError(error, 'OUTPUT_FAILED')) throw error;
  });
  const found = files.powerCut(random);
  for (const [path, durable] of promises.durable) {
    try {
      const log = await ChangeLog.open(path, { ports: { files: found } });
      await verifyLog(log);
      const entries = await entriesOf(log);
      const written = promises.written.filter((write) => write.path === path);
      for (const [i, { byteOffset, dataLength, fileOffset }] of entries.entries()) {
        const data = Buffer.alloc(dataLength);
        await log.read(data, fileOffset);
        if (byteOffset !== written[i]?.at || !data.equals(written[i].data)) return true;
      }
      if (entries.length < durable || (promises.closed.has(path) && !log.isClosed)) return true;
    } catch (error) {
      if (!isBlockferryError(error)) throw error;
      return true;
    }
  }
  return false;
}

async function operationsOf(seed: number): Promise<number> {
  const files = crashFileSystem(new Map([['/disks/web1.vhdx', new Uint8Array(0)]]));
  await run(files, new Dice(seed), { written: [], durable: new Map(), closed: new Set() });
  return files.operations;
}

async function broken(ignoreSyncOf?: RegExp): Promise<number> {
  const chance = new Dice(99);
  const random: Random = { bytes: (n) => chance.bytes(n), fraction: () => chance.next() / 2 ** 32 };
  let count = 0;
  for (let seed = 1; seed <= 5; seed += 1) {
    const operations = await operationsOf(seed);
    for (let stopAt = 0; stopAt <= operations; stopAt += 1) {
      for (let draw = 0; draw < 3; draw += 1) {
        if (await breaksPromise(seed, stopAt, ignoreSyncOf, random)) count += 1;
      }
    }
  }
  return count;
}

describe('a power cut after any file operation', () => {
  it('loses nothing that was synced, and leaves no write that was not made', async () => {
    expect(await broken()).toBe(0);
  });

  it('loses something where the syncs are left out', async () => {
    expect(await broken(/\.hrl$/)).toBeGreaterThan(100);
  });
});

describe('the closing header', () => {
  it('never reaches the disk before what it closes', async () => {
    const files = crashFileSystem(new Map([['/disks/web1.vhdx', new Uint8Array(0)]]));
    const ports = { ...testPorts(), files };
    const writer = await LogWriter.create(PATH, { ports });
    await writer.append([{ byteOffset: 0, bytes: sectors(40, 1) }]);
    const before = files.operations;
    // Block, sync, header: with the sync between them lost, the header may survive without the block.
    files.stopAt = before + 3;
    files.skipNextSyncOf = /\.hrl$/;
    await expect(writer.close()).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
    const dice = new Dice(4);
    const random: Random = { bytes: (n) => dice.bytes(n), fraction: () => dice.next() / 2 ** 32 };
    let refused = 0;
    for (let draw = 0; draw < 200; draw += 1) {
      const opened = ChangeLog.open(PATH, { ports: { files: files.powerCut(random) } }).then(verifyLog);
      refused += await opened.then(
        () => 0,
        () => 1,
      );
    }
    expect(refused).toBeGreaterThan(10);
  });
});
