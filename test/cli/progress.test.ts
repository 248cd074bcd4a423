import { describe, expect, test } from 'vitest';
import { Progress } from '../../src/cli/progress.ts';
import { nodePorts } from '../../src/index.ts';

const GIB = 2 ** 30;

/** A progress over a clock that the test moves. */
function setUp(isTTY: boolean, quiet = false): { progress: Progress; written: string[]; pass(ms: number): void } {
  let nowMs = 1000;
  const written: string[] = [];
  const clock = { ...nodePorts().clock, monotonicMs: () => nowMs };
  const stream = { isTTY, write: (text: string) => written.push(text) };
  return {
    progress: new Progress(clock, { quiet }, stream),
    written,
    pass(ms) {
      nowMs += ms;
    },
  };
}

const at = (doneBytes: number, title = 'restore d0') => ({ title, doneBytes, totalBytes: 10 * GIB });

describe('progress on a terminal', () => {
  test('is one line with bytes, rate and time left', () => {
    const { progress, written, pass } = setUp(true);
    progress.update({ ...at(0), transferredBytes: 0 });
    pass(2000);
    progress.update({ ...at(GIB), transferredBytes: GIB / 2 });
    expect(written.at(-1)).toBe(
      '\rrestore d0: 1 GiB of 10 GiB (10 %), 512 MiB/s, 512 MiB transferred, 18 s left\x1b[K',
    );
  });

  test('is redrawn at most five times a second', () => {
    const { progress, written, pass } = setUp(true);
    for (let i = 0; i < 1000; i += 1) {
      progress.update(at(i));
      pass(1);
    }
    expect(written.length).toBe(5);
  });

  test('takes the rate of a resumed run from what this run did', () => {
    const { progress, written, pass } = setUp(true);
    progress.update(at(8 * GIB));
    pass(1000);
    progress.update(at(9 * GIB));
    expect(written.at(-1)).toContain('9 GiB of 10 GiB (90 %), 1 GiB/s, 1.0 s left');
  });

  test('is wiped before the program says something else', () => {
    const { progress, written } = setUp(true);
    progress.update(at(0));
    progress.clear();
    progress.clear();
    expect(written.slice(1)).toEqual(['\r\x1b[K']);
  });

  test('shows no control characters of a name', () => {
    const { progress, written } = setUp(true);
    progress.update(at(0, 'restore \x1b[31m'));
    expect(written[0]).toContain('restore \\x1b[31m:');
  });
});

describe('progress elsewhere', () => {
  test('is a line at the end of a long phase, and nothing for a short one', () => {
    const { progress, written, pass } = setUp(false);
    progress.update(at(0));
    pass(1000);
    progress.update(at(0, 'restore d1'));
    pass(4000);
    progress.update(at(10 * GIB, 'restore d1'));
    progress.end();
    expect(written).toEqual(['blockferry: restore d1: 10 GiB of 10 GiB (100 %), 2.5 GiB/s, in 4.0 s\n']);
  });

  test('answers when it is asked, also with --quiet', () => {
    const { progress, written } = setUp(false, true);
    progress.print();
    progress.update(at(GIB));
    progress.print();
    progress.end();
    expect(written).toEqual([
      'blockferry: nothing is being moved\n',
      'blockferry: restore d0: 1 GiB of 10 GiB (10 %)\n',
    ]);
  });
});
