/** The page of figures, made from records: what it says of a budget, what it does not hide, and that it is the one that is checked in. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { performancePage, performancePlots } from '../../bench/page.ts';
import { accept } from '../../bench/performance.ts';
import { drawPlot } from '../../bench/plot.ts';
import { type BenchRecord, type RunRecord, readRecords } from '../../bench/record.ts';

const DOCS = resolve(import.meta.dirname, '../../docs');
const WHERE = { time: '2026-01-01T00:00Z', commit: 'abc', machine: 'a machine', load: 0 };

function ran(bench: string, task: string, contestant: string, more: Partial<RunRecord> = {}): RunRecord {
  const about = {
    type: 'run',
    bench,
    task,
    contestant,
    round: 1,
    command: `${contestant} run`,
    input: 'bytes',
  } as const;
  return { ...WHERE, ...about, wallMs: 1000, cpuMs: 1500, peakMib: 100, counts: {}, ...more };
}

const ours = (wallMs: number): RunRecord => ran('sync', 'first copy', 'blockferry', { wallMs });
const restic = (wallMs: number): RunRecord => ran('sync', 'first copy', 'restic', { wallMs });

function lineWith(page: string, text: string): string {
  return page.split('\n').find((line) => line.includes(text)) ?? '';
}

describe('the page of figures', () => {
  it('says of a budget that it is met, by the best round of each', () => {
    const page = performancePage([ours(2000), ours(1000), restic(9000), restic(3100)]);
    expect(lineWith(page, '| restic backup |')).toContain('| 3.10× | met |');
    expect(page).not.toContain('What stands in the way');
  });

  it('says by how much a budget is missed, and what bounds it', () => {
    const limit = ran('sync', 'first copy', 'limit: reading and compressing', { wallMs: 750 });
    const counts = { requests: 2600, serverCpuMs: 400 };
    const page = performancePage([{ ...ours(1000), counts }, restic(1500), limit]);
    expect(lineWith(page, '| restic backup |')).toContain('| 1.50× | **missed by 50 %** |');
    const line = lineWith(page, 'beside restic backup: 1.50×');
    expect(line).toContain('takes 750 ms in Node on this machine, which would be 2.00×');
    expect(line).toContain('2600 requests cost the discarding server 400 ms of CPU: together 1.9 processors are busy');
  });

  it('says what did not run, and why', () => {
    const [skipped, failed] = ['azcopy is not installed', 'mkfs.ext4 ended with 1'];
    const page = performancePage([
      ours(1000),
      { ...WHERE, type: 'skipped', bench: 'upload', task: 'raw', contestant: 'azcopy', reason: skipped },
      { ...WHERE, type: 'failed', bench: 'sync', reason: failed },
    ]);
    expect(page).toContain(`- raw: azcopy: skipped: ${skipped}`);
    expect(page).toContain(`- failed: ${failed}`);
    expect(lineWith(page, '| azcopy |')).toContain('not measured');
  });

  it('names machine, commit and load of each run of the bench', () => {
    const page = performancePage([ours(1000), { ...restic(3000), commit: 'def' }]);
    expect(page).toContain('commit `abc`, load 0 before: a machine (sync)');
    expect(page).toContain('commit `def`, load 0 before: a machine (sync)');
  });

  it('that is checked in is made from the records that are checked in, and so are its plots', () => {
    const records = readRecords(join(DOCS, 'performance.ndjson'));
    expect(readFileSync(join(DOCS, 'performance.md'), 'utf8')).toBe(performancePage(records));
    for (const [name, svg] of performancePlots(records))
      expect(readFileSync(join(DOCS, 'performance', name), 'utf8')).toBe(svg);
  });
});

describe('records that are accepted', () => {
  it('replace those of the same bench, and leave the others', () => {
    const directory = mkdtempSync(join(tmpdir(), 'blockferry-accept-'));
    const now = (): readonly BenchRecord[] => readRecords(join(directory, 'performance.ndjson'));
    try {
      accept(directory, ['sync', 'start'], [ran('start', 'a disk of 1 MiB', 'node'), ours(3000), restic(9000)]);
      accept(directory, ['sync'], [ours(1000)]);
      expect(now()).toEqual([ran('start', 'a disk of 1 MiB', 'node'), ours(1000)]);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe('a plot', () => {
  const plot = { title: 'a < b', xLabel: 'x', yLabel: 'y', places: ['1', '2', '4'] };

  it('draws the highest value at the top of its frame, and zero at the bottom', () => {
    const svg = drawPlot({ ...plot, lines: [{ name: 'one', values: [0, 2, 10] }] });
    expect(svg).toMatch(/<polyline points="[\d.]+,344 [\d.]+,283.2 [\d.]+,40"/);
    expect(svg).toContain('a &lt; b');
  });

  it('leaves out what was not measured, and moves names apart that would lie on each other', () => {
    const svg = drawPlot({
      ...plot,
      lines: [
        { name: 'one', values: [1, undefined, 5] },
        { name: 'two', values: [1, 2, 5] },
      ],
    });
    const heights = [...svg.matchAll(/y="([\d.]+)"[^>]*>(?:one|two)</g)].map(([, y]) => Number(y));
    expect(svg.match(/<circle/g)).toHaveLength(5);
    expect(Math.abs(heights[0]! - heights[1]!)).toBe(15);
  });
});
