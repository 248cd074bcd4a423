import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { MIB } from '../../src/bytes.ts';
import { type BuiltLogOptions, type BuiltWrite, buildLog, LOG_TIME } from '../support/hrl-builder.ts';
import { patterned } from '../tools/fake-disk.ts';
import { expectTranscript, inScratch, records, runCli } from './support.ts';

const id = (n: number): Uint8Array => new Uint8Array(16).fill(n);
const WRITES: readonly BuiltWrite[] = [
  { at: MIB, data: patterned(4096, 1), time: LOG_TIME + 1 },
  { at: 512, data: patterned(1024, 2), time: LOG_TIME + 2 },
  { at: MIB + 512, data: patterned(512, 3), time: LOG_TIME + 3 },
];

async function put(directory: string, name: string, options: Partial<BuiltLogOptions> = {}): Promise<Buffer> {
  const { bytes } = buildLog({ blocks: [[], WRITES], uniqueId: id(1), dataWriteGuid: id(0xdd), ...options });
  await writeFile(join(directory, name), bytes);
  return bytes;
}

/** The disk with the writes played plainly, one after the other. */
function played(disk: Buffer, ...writes: readonly BuiltWrite[]): Buffer {
  const after = Buffer.from(disk);
  for (const { at, data } of writes) after.set(data, at);
  return after;
}

describe('the toolkit for change logs', () => {
  test('dumps, verifies, replays and compacts', async () => {
    await inScratch(async (cwd) => {
      const whole = await put(cwd, 'a.hrl');
      await put(cwd, 'b.hrl', { uniqueId: id(2), previousUniqueId: id(1) });
      await put(cwd, 'open.hrl', { open: true, uniqueId: id(3), previousUniqueId: id(2) });
      await writeFile(join(cwd, 'torn.hrl'), whole.subarray(0, -1));
      await writeFile(join(cwd, 'flipped.hrl'), Buffer.from(whole).fill(1, 8192, 8193));
      await writeFile(join(cwd, 'disk.raw'), Buffer.alloc(2 * MIB));
      await writeFile(join(cwd, 'small.raw'), Buffer.alloc(MIB));
      await expectTranscript(
        'hrl',
        [
          ['hrl', 'dump', 'a.hrl'],
          ['hrl', 'dump', 'a.hrl', '--json'],
          ['hrl', 'dump', 'open.hrl', '--json'],
          ['hrl', 'dump', 'torn.hrl'],
          ['hrl', 'dump', 'none.hrl', '--json'],
          ['hrl', 'verify', 'a.hrl'],
          ['hrl', 'verify', 'a.hrl', '--json'],
          ['hrl', 'verify', 'open.hrl'],
          ['hrl', 'verify', 'open.hrl', '--json'],
          ['hrl', 'verify', 'torn.hrl', '--json'],
          ['hrl', 'verify', 'flipped.hrl'],
          ['hrl', 'verify', 'flipped.hrl', '--json'],
          ['hrl', 'replay', 'flipped.hrl', '--onto', 'disk.raw'],
          ['hrl', 'replay', 'a.hrl', '--onto', 'small.raw'],
          ['hrl', 'replay', 'a.hrl', '--onto', 'disk.raw'],
          ['hrl', 'replay', 'open.hrl', '--onto', 'disk.raw', '--json'],
          ['hrl', 'replay', 'a.hrl'],
          ['hrl', 'compact', 'open.hrl', 'a.hrl', '--out', 'out.hrl'],
          ['hrl', 'compact', 'a.hrl', 'a.hrl', '--out', 'out.hrl', '--json'],
          ['hrl', 'compact', 'b.hrl', 'a.hrl', '--out', 'out.hrl'],
          ['hrl', 'compact', 'b.hrl', 'a.hrl', '--out', 'out.hrl'],
          ['hrl', 'compact', 'open.hrl', 'b.hrl', '--out', 'partial.hrl', '--json'],
          ['hrl', 'verify', 'out.hrl'],
        ],
        { cwd },
      );
      expect((await readdir(cwd)).filter((name) => name.endsWith('.partial'))).toEqual([]);
      expect((await readFile(join(cwd, 'small.raw'))).equals(Buffer.alloc(MIB))).toBe(true);
      expect((await readFile(join(cwd, 'disk.raw'))).equals(played(Buffer.alloc(2 * MIB), ...WRITES))).toBe(true);
    });
  });

  test.each(['raw', 'vhd', 'vhdx'])(
    'replays onto a disk of format %s, and a compacted chain gives the same',
    async (format) => {
      await inScratch(async (cwd) => {
        const content = Buffer.from(patterned(4 * MIB, 9));
        const later = WRITES.map((write, i) => ({ at: write.at + 1024 * i, data: patterned(2048, 20 + i) }));
        await put(cwd, 'a.hrl');
        await put(cwd, 'b.hrl', { uniqueId: id(2), previousUniqueId: id(1), blocks: [[], later, []] });
        await writeFile(join(cwd, 'disk.raw'), content);
        const disks = [`one.${format}`, `two.${format}`];
        for (const disk of disks)
          expect(await runCli(['convert', 'disk.raw', disk], { cwd })).toMatchObject({ code: 0 });
        for (const args of [
          ['replay', 'a.hrl', '--onto', disks[0]!],
          ['replay', 'b.hrl', '--onto', disks[0]!],
          ['compact', 'b.hrl', 'a.hrl', '--out', 'both.hrl'],
          ['replay', 'both.hrl', '--onto', disks[1]!],
        ]) {
          expect(await runCli(['hrl', ...args], { cwd })).toMatchObject({ code: 0, stderr: '' });
        }
        await writeFile(join(cwd, 'expected.raw'), played(content, ...WRITES, ...later));
        const digest = async (disk: string): Promise<unknown> =>
          records(await runCli(['digest', disk, '--json'], { cwd })).at(-1)?.['sha256'];
        const expected = await digest('expected.raw');
        for (const disk of disks) {
          expect(await digest(disk)).toBe(expected);
          expect(await runCli(['check', disk], { cwd })).toMatchObject({ code: 0 });
        }
      });
    },
  );
});
