/** What is kept of a run: the records of each bench that were accepted last, and the page and plots that are made from them. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BENCHES } from './benches.ts';
import { performancePage, performancePlots } from './page.ts';
import { type BenchRecord, formatRecords, readRecords } from './record.ts';

const RECORDS = 'performance.ndjson';
const PAGE = 'performance.md';
const PLOTS = 'performance';

/** Replaces what `directory` has of these benches, in the order of all benches, and writes the page anew. Returns its path. */
export function accept(directory: string, names: readonly string[], records: readonly BenchRecord[]): string {
  const path = join(directory, RECORDS);
  const order = Object.keys(BENCHES);
  const kept = readRecords(path).filter(({ bench }) => !names.includes(bench) && order.includes(bench));
  const all = [...kept, ...records].sort((a, b) => order.indexOf(a.bench) - order.indexOf(b.bench));
  writeFileSync(path, formatRecords(all));
  writePage(directory);
  return join(directory, PAGE);
}

/** Writes page and plots from the records that `directory` has. */
export function writePage(directory: string): void {
  const records = readRecords(join(directory, RECORDS));
  const plots = join(directory, PLOTS);
  rmSync(plots, { recursive: true, force: true });
  mkdirSync(plots, { recursive: true });
  for (const [name, svg] of performancePlots(records)) writeFileSync(join(plots, name), svg);
  writeFileSync(join(directory, PAGE), performancePage(records));
}
