/**
 * `npm run bench`: races blockferry against its peers and against itself, and keeps what came out.
 *
 *     npm run bench [-- --only NAME[,NAME…]] [--rounds N] [--smoke]
 *
 * Every record goes to a file of this run under bench/results.
 */
import { appendFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { BENCHES } from './benches.ts';
import { CHECKOUT } from './blockferry.ts';
import { Lab } from './lab.ts';
import { type BenchRecord, circumstances, formatRecords } from './record.ts';

const ROUNDS = 3;

interface Options {
  readonly names: readonly string[];
  readonly rounds: number;
  readonly smoke: boolean;
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: { only: { type: 'string' }, rounds: { type: 'string' }, smoke: { type: 'boolean', default: false } },
  });
  const names = values.only?.split(',') ?? Object.keys(BENCHES);
  const unknown = names.filter((name) => !(name in BENCHES));
  if (unknown.length > 0)
    throw new Error(`no bench ${unknown.join(', ')}; there are ${Object.keys(BENCHES).join(', ')}`);
  const rounds = Number(values.rounds ?? (values.smoke ? 1 : ROUNDS));
  if (!Number.isSafeInteger(rounds) || rounds < 1) throw new Error(`--rounds ${values.rounds} is no number of rounds`);
  return { names, rounds, smoke: values.smoke };
}

function tell(record: BenchRecord): void {
  if (record.type === 'tool') return;
  const subject = `${record.bench}: ${record.task}: ${record.contestant}`;
  if (record.type === 'skipped') return void process.stdout.write(`${subject}: skipped: ${record.reason}\n`);
  const { round, wallMs, cpuMs, peakMib, counts } = record;
  const counted = Object.entries(counts).map(([name, value]) => `, ${name} ${value}`);
  const cost = `${wallMs} ms, ${cpuMs} ms of CPU, ${peakMib} MiB`;
  process.stdout.write(`${subject} #${round}: ${cost}${counted.join('')}\n`);
}

async function main(): Promise<void> {
  const { names, rounds, smoke } = readOptions();
  const now = circumstances(CHECKOUT);
  const results = join(CHECKOUT, 'bench/results');
  mkdirSync(results, { recursive: true });
  const file = join(results, `${now.time.replaceAll(':', '')}-${process.pid}.ndjson`);
  const records: BenchRecord[] = [];
  const onRecord = (record: BenchRecord): void => {
    records.push(record);
    appendFileSync(file, formatRecords([record]));
    tell(record);
  };
  await Lab.open({ rounds, smoke, circumstances: now, onRecord }, async (lab) => {
    for (const name of names) await BENCHES[name]!(lab);
  });
  process.stdout.write(`${file}\n`);
}

await main();
