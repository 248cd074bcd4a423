/**
 * `npm run bench`: races blockferry against its peers and against itself, and keeps what came out.
 *
 *     npm run bench [-- --only NAME[,NAME…]] [--rounds N] [--smoke] [--accept]
 *     npm run bench -- --page
 *
 * Every record goes to a file of this run under bench/results at once. A run of everything, or one with `--accept`, then replaces what
 * docs/performance.ndjson has of its benches, and writes docs/performance.md and its plots anew. A smoke run does the same under
 * bench/results. `--page` only writes the page again. What fails is told, and the exit code is 1; the rest goes on.
 */
import { appendFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { BENCHES } from './benches.ts';
import { CHECKOUT } from './blockferry.ts';
import { dismissGuard } from './guard.ts';
import { Lab } from './lab.ts';
import { accept, writePage } from './performance.ts';
import { reasonOf } from './race.ts';
import { type BenchRecord, circumstances, formatRecords } from './record.ts';

const ROUNDS = 3;

interface Options {
  readonly names: readonly string[];
  readonly rounds: number;
  readonly smoke: boolean;
  readonly accepted: boolean;
  readonly pageOnly: boolean;
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      rounds: { type: 'string' },
      smoke: { type: 'boolean', default: false },
      accept: { type: 'boolean', default: false },
      page: { type: 'boolean', default: false },
    },
  });
  const names = values.only?.split(',') ?? Object.keys(BENCHES);
  const unknown = names.filter((name) => !(name in BENCHES));
  if (unknown.length > 0)
    throw new Error(`no bench ${unknown.join(', ')}; there are ${Object.keys(BENCHES).join(', ')}`);
  const rounds = Number(values.rounds ?? (values.smoke ? 1 : ROUNDS));
  if (!Number.isSafeInteger(rounds) || rounds < 1) throw new Error(`--rounds ${values.rounds} is no number of rounds`);
  const { smoke } = values;
  return { names, rounds, smoke, accepted: values.accept || values.only === undefined, pageOnly: values.page };
}

function tell(record: BenchRecord): void {
  if (record.type === 'tool') return;
  if (record.type === 'step') {
    const { bench, step, bestUs, medianUs } = record;
    return void process.stdout.write(`${bench}: ${step}: ${bestUs} µs, median ${medianUs} µs\n`);
  }
  const subject = [record.bench, record.task, record.contestant].filter((part) => part !== undefined).join(': ');
  if (record.type !== 'run') return void process.stdout.write(`${subject}: ${record.type}: ${record.reason}\n`);
  const { round, x, wallMs, cpuMs, peakMib, counts } = record;
  const counted = Object.entries(counts).map(([name, value]) => `, ${name} ${value}`);
  const cost = `${wallMs} ms, ${cpuMs} ms of CPU, ${peakMib} MiB`;
  process.stdout.write(`${subject}${x === undefined ? '' : ` at ${x}`} #${round}: ${cost}${counted.join('')}\n`);
}

async function runBenches({ names, rounds, smoke }: Options, results: string): Promise<readonly BenchRecord[]> {
  const now = circumstances(CHECKOUT);
  const file = join(results, `${now.time.replaceAll(':', '')}-${process.pid}.ndjson`);
  const records: BenchRecord[] = [];
  const onRecord = (record: BenchRecord): void => {
    records.push(record);
    appendFileSync(file, formatRecords([record]));
    tell(record);
  };
  await Lab.open({ rounds, smoke, circumstances: now, onRecord }, async (lab) => {
    for (const name of names) {
      try {
        await BENCHES[name]!.run(lab);
      } catch (error) {
        lab.report({ type: 'failed', bench: name, reason: reasonOf(error) });
      }
      await lab.clear();
    }
  });
  process.stdout.write(`${file}\n`);
  return records;
}

async function main(): Promise<void> {
  const options = readOptions();
  const docs = join(CHECKOUT, 'docs');
  if (options.pageOnly) return writePage(docs);
  const results = join(CHECKOUT, 'bench/results');
  mkdirSync(results, { recursive: true });
  const records = await runBenches(options, results);
  if (options.accepted) process.stdout.write(`${accept(options.smoke ? results : docs, options.names, records)}\n`);
  if (records.some(({ type }) => type === 'failed')) process.exitCode = 1;
}

try {
  await main();
} finally {
  dismissGuard();
}
