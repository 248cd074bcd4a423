/** Random schedules of writes, zeros, flushes and reopenings against a model, for every kind of disk. */
import { expect, test } from 'vitest';
import { checkDisk } from '../../src/vhd/index.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import { expectSame, readAll, testPorts } from './vhd-image.ts';
import { KINDS, makeDisk, runSchedule } from './write-model.ts';

const seed = numberFromEnvironment('BLOCKFERRY_SEED', 1);
const rounds = numberFromEnvironment('BLOCKFERRY_CASES', 2);

test.for(KINDS)('$name: what was written is what is read, at any moment and after closing', async (kind) => {
  for (let round = 0; round < rounds; round += 1) {
    const dice = new Dice(seed, round);
    const ports = testPorts();
    const { path, parentPaths, content } = await makeDisk(ports, '/disks', kind, dice);
    const parents = parentPaths.map((parent) => Buffer.from(ports.files.get(parent)!));
    await runSchedule(ports, path, content, kind, dice, 60);
    expectSame(await readAll(ports, path, { format: kind.format }), content);
    if (kind.format !== 'raw') expect((await checkDisk(path, { ports })).faults).toEqual([]);
    for (const [i, parent] of parentPaths.entries()) expectSame(ports.files.get(parent)!, parents[i]!);
  }
});
