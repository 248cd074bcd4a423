import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { formatDuration } from '../../src/cli/format.ts';
import { visible } from '../../src/cli/output.ts';
import { Stdout } from '../../src/cli/stdout.ts';
import { patterned } from '../tools/fake-disk.ts';
import { inScratch } from './support.ts';

test.runIf(process.platform !== 'win32')(
  'a pipe that somebody made non-blocking gets every byte in order',
  async () => {
    await inScratch(async (directory) => {
      const path = join(directory, 'pipe');
      execFileSync('mkfifo', [path]);
      const descriptor = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
      try {
        const bytes = patterned(1_000_000, 1);
        const stdout = new Stdout(descriptor, new AbortController().signal);
        const writing = stdout.bytes(bytes);
        const got: Buffer[] = [];
        for (let left = bytes.byteLength; left > 0; ) {
          await new Promise((resolve) => setTimeout(resolve, 2));
          const part = Buffer.alloc(65_536);
          try {
            const length = readSync(descriptor, part);
            got.push(part.subarray(0, length));
            left -= length;
          } catch (error) {
            if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
          }
        }
        await writing;
        expect(Buffer.concat(got).equals(bytes)).toBe(true);
        expect(stdout.closed).toBe(false);
      } finally {
        closeSync(descriptor);
      }
    });
  },
);

test('what has reached its reader is written, though the abort came before the write was reported as done', async () => {
  await inScratch(async (directory) => {
    const path = join(directory, 'file');
    const descriptor = openSync(path, 'w');
    try {
      const controller = new AbortController();
      const stdout = new Stdout(descriptor, controller.signal);
      const writing = stdout.bytes(Buffer.from('listening\n'));
      controller.abort();
      await writing;
      expect(readFileSync(path, 'utf8')).toBe('listening\n');
      expect(stdout.closed).toBe(false);
    } finally {
      closeSync(descriptor);
    }
  });
});

test.each([
  ['plain name.vhd', 'plain name.vhd'],
  ['tab\tstays', 'tab\tstays'],
  ['a\nb\r\x00\x7f', 'a\\x0ab\\x0d\\x00\\x7f'],
  ['\x9b31m', '\\x9b31m'],
  ['gpj.\u202eexe', 'gpj.\\u202eexe'],
  ['日本.vhdx', '日本.vhdx'],
])('control characters are shown: %j', (text, shown) => {
  expect(visible(text)).toBe(shown);
});

test.each([
  [850, '0.8 s'],
  [12_400, '12 s'],
  [59_900, '1 min 00 s'],
  [200_000, '3 min 20 s'],
  [7_500_000, '2 h 05 min'],
  [5 * 86_400_000, '5 days'],
])('%d ms are %s', (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});
