import { describe, expect, test } from 'vitest';
import { expectTranscript, inScratch, records, runCli } from './support.ts';

describe('usage errors', () => {
  test('each has one line of error, one of hint, and exit 2', async () => {
    await inScratch(async (cwd) => {
      await expectTranscript(
        'usage',
        [
          [],
          ['frobnicate'],
          ['inof', 'disk.vhd'],
          ['info'],
          ['info', 'a', 'b'],
          ['info', 'disk.vhd', '--jsno'],
          ['digest', 'disk.vhd', '--chunk-size', '100K'],
          ['digest', 'disk.vhd', '--chunk-size', 'big'],
          ['digest', 'disk.vhd', '--algorithm', 'md5'],
          ['convert', 'disk.vhd', 'out.qcow2'],
          ['convert', 'disk.vhd', '-', '--format', 'vhdx'],
        ],
        { cwd },
      );
    });
  });

  test('with --json the error is a record too, wherever the option stands', async () => {
    for (const args of [
      ['--json', 'info'],
      ['info', '--json'],
      ['info', '--json', '--nonsense'],
    ]) {
      const result = await runCli(args);
      expect(result.code).toBe(2);
      expect(records(result)).toEqual([
        { type: 'error', code: 'USAGE', message: expect.any(String), hint: expect.any(String) },
      ]);
    }
  });

  test('an argument behind -- is no option', async () => {
    const result = await runCli(['info', '--', '--json']);
    expect(result).toMatchObject({ code: 4, stdout: '' });
  });
});

describe('errors', () => {
  test('carry their facts as fields of the record, beside type, code and message', async () => {
    await inScratch(async (cwd) => {
      const result = await runCli(['info', 'missing.vhd', '--json'], { cwd });
      expect(result.code).toBe(4);
      expect(records(result)).toEqual([
        expect.objectContaining({
          type: 'error',
          code: 'DISK_NOT_FOUND',
          message: expect.stringContaining('missing.vhd'),
        }),
      ]);
      expect(result.stderr).toMatch(/^blockferry: error: .*missing\.vhd/);
    });
  });

  test('show a stack only with --verbose', async () => {
    const plain = await runCli(['info', '/nonexistent']);
    expect(plain.stderr).not.toMatch(/^\s+at /m);
    const verbose = await runCli(['info', '/nonexistent', '--verbose']);
    expect(verbose.stderr).toMatch(/^\s+at /m);
  });

  test('cannot drive the terminal by a file name', async () => {
    const result = await runCli(['info', '/no\u001b[2Jsuch\u0007\nfile']);
    expect(result.stderr).toContain('/no\\x1b[2Jsuch\\x07\\x0afile');
    expect(result.stderr).not.toContain('\u001b');
  });

  test('in a failpoint variable are usage errors', async () => {
    const result = await runCli(['info', 'x'], { env: { BLOCKFERRY_FAILPOINTS: 'nonsense' } });
    expect(result.code).toBe(2);
  });
});
