/** docs/performance.md and its plots, from records alone: the same records make the same bytes. */
import { BENCHES } from './benches.ts';
import { Book, distinct } from './book.ts';
import { BUDGETS, type Budget, isMet, type Judged, missedBy } from './budgets.ts';
import { bytesText, countName, countText, gigabytesPerSecond, milliseconds } from './format.ts';
import { drawPlot } from './plot.ts';
import type { BenchRecord, RunRecord } from './record.ts';
import { GROWTHS } from './rows/growth.ts';

const VERBS = ['sync', 'compare', 'ship', 'apply', 'restore'];

/** The page, in Markdown. */
export function performancePage(records: readonly BenchRecord[]): string {
  const book = new Book(records);
  const benches = Object.keys(BENCHES).filter((name) => records.some(({ bench }) => bench === name));
  const sections = [intro(), circumstancesOf(book), budgets(book), ...benches.map((name) => section(book, name))];
  return `${sections.join('\n\n')}\n`;
}

/** The plots that the page shows, by file name. */
export function performancePlots(records: readonly BenchRecord[]): ReadonlyMap<string, string> {
  const book = new Book(records);
  const grown = Object.keys(GROWTHS).filter((bench) => book.of('run', bench).length > 0);
  return new Map(grown.map((bench) => [`${bench}.svg`, growthPlot(book, bench)]));
}

function intro(): string {
  return `# Performance

This page is written by \`npm run bench\`, from the records in [performance.ndjson](performance.ndjson): each line is a run, with its command, its
input, the machine and the commit. Programs take turns on the same input, which is in the page cache, and the best of their runs counts.
Times depend on the machine; the ratios are what we hold ourselves to. \`npm run bench -- --only NAME\` measures one section again.

Our commands run as users run them, a process each, from start to end, without NODE_EXTRA_CA_CERTS: where that is set, Node reads all of its
certificates at every start. The *discarding server* is a blob service on the loopback that
answers at once and throws away what disks consist of: it stands for a store that is infinitely fast, and says nothing about a real one.
It has a process of its own, on the same processors.`;
}

function circumstancesOf({ records }: Book): string {
  const lines = distinct(
    records.map(({ time, commit, machine, load }) => `${time}, commit \`${commit}\`, load ${load} before: ${machine}`),
  ).map((line) => {
    const benches = records.filter(
      ({ time, commit, machine, load }) => line === `${time}, commit \`${commit}\`, load ${load} before: ${machine}`,
    );
    return `- ${line} (${distinct(benches.map(({ bench }) => bench)).join(', ')})`;
  });
  const tools = distinct(new Book(records).of('tool').map(({ name, version }) => `${name}: ${version}`));
  const versions = tools.length > 0 ? `\n\nTools: ${tools.join('; ')}.` : '';
  return `## When and where\n\n${lines.join('\n')}${versions}`;
}

function budgets(book: Book): string {
  const judged = BUDGETS.map((budget) => ({ budget, verdict: budget.judge(book) }));
  const rows = judged.map(({ budget, verdict }) => [
    budget.work,
    budget.reference,
    budget.demand,
    verdict?.text ?? 'not measured',
    verdict === undefined ? '' : isMet(verdict) ? 'met' : `**missed by ${percent(missedBy(verdict))}**`,
  ]);
  const missed = judged.flatMap(({ budget, verdict }) =>
    verdict === undefined || isMet(verdict) ? [] : [missedText(book, budget, verdict)],
  );
  const bounds =
    missed.length > 0
      ? `\n\nWhat stands in the way of those that are missed, in figures of this run. A *limit* is a program that does one part of the work and nothing else (bench/limit-process.ts): no command that does that part in Node comes below it here.\n\n${missed.join('\n')}`
      : '';
  return `## Budgets\n\n${table(['work', 'beside', 'demanded', 'measured', ''], rows)}${bounds}`;
}

function missedText(book: Book, budget: Budget, verdict: Judged): string {
  const { ours, text } = verdict;
  const busy = (ours.cpuMs / ours.wallMs).toFixed(1);
  const cost = `${milliseconds(ours.wallMs)}, ${busy} processors busy`;
  const work = budget.work.startsWith('the same') ? `${budget.work} (${ours.bench})` : budget.work;
  return `- ${work}, beside ${budget.reference}: ${text} (${cost}). ${budget.bound(book, ours)}`;
}

function section(book: Book, bench: string): string {
  const { title, text } = BENCHES[bench]!;
  const told = [...book.of('skipped', bench), ...book.of('failed', bench)].map((record) => {
    const subject = [record.task, record.contestant].filter((part) => part !== undefined).join(': ');
    return `- ${subject === '' ? '' : `${subject}: `}${record.type}: ${record.reason}`;
  });
  const parts = [
    `## ${title}`,
    `${text} (\`npm run bench -- --only ${bench}\`)`,
    ...(bench in GROWTHS ? [grown(book, bench)] : raced(book, bench)),
    ...(book.of('step', bench).length > 0 ? [steps(book, bench)] : []),
    ...(told.length > 0 ? [told.join('\n')] : []),
  ];
  return parts.filter((part) => part !== '').join('\n\n');
}

/** A table for each task, with the commands below it. */
function raced(book: Book, bench: string): readonly string[] {
  const runs = book.of('run', bench);
  return distinct(runs.map(({ task }) => task)).map((task) => {
    const ofTask = runs.filter((run) => run.task === task);
    const best = distinct(ofTask.map(({ contestant }) => contestant)).map((name) => book.best(bench, task, name)!);
    const counts = distinct(best.flatMap((run) => Object.keys(run.counts)));
    const rows = best.map((run) => [
      run.contestant,
      `${milliseconds(run.wallMs)}${spread(book, run)}`,
      milliseconds(run.cpuMs),
      `${Math.round(run.peakMib)} MiB`,
      ...counts.map((name) => {
        const value = run.counts[name];
        return value === undefined ? '' : countText(name, value);
      }),
    ]);
    const head = ['', 'wall (best to worst)', 'CPU', 'peak memory', ...counts.map(countName)];
    const commands = best.map(({ contestant, command }) => `- ${contestant}: \`${command}\``);
    const input = distinct(ofTask.map((run) => run.input)).join('; ');
    return `**${task}**: ${input}\n\n${table(head, rows)}\n\n${commands.join('\n')}`;
  });
}

/** How far the rounds lie apart. */
function spread(book: Book, { bench, task, contestant }: RunRecord): string {
  const rounds = book.rounds(bench, task, contestant);
  return rounds.length < 2 ? '' : ` to ${milliseconds(Math.max(...rounds.map(({ wallMs }) => wallMs)))}`;
}

function placesOf(book: Book, bench: string): readonly number[] {
  return [...distinct(book.of('run', bench).map(({ x }) => x!))].sort((a, b) => a - b);
}

function grown(book: Book, bench: string): string {
  if (book.of('run', bench).length === 0) return '';
  const { unit } = GROWTHS[bench]!;
  const places = placesOf(book, bench);
  const peak = (x: number): number =>
    Math.max(...VERBS.map((verb) => book.best(bench, verb, 'blockferry', x)?.peakMib ?? 0));
  const rows = places.map((x) => [
    String(x),
    ...VERBS.map((verb) => {
      const run = book.best(bench, verb, 'blockferry', x);
      return run ? `${milliseconds(run.wallMs)} (${milliseconds(run.cpuMs)})` : '';
    }),
    `${Math.round(peak(x))} MiB`,
  ]);
  const inputs = distinct(places.map((x) => book.of('run', bench).find((run) => run.x === x)!.input));
  return [
    `![${BENCHES[bench]!.title}](performance/${bench}.svg)`,
    `Wall time, CPU time in parentheses; the most memory that any of them took.`,
    table([unit, ...VERBS, 'peak memory'], rows),
    `At the first place: ${inputs[0]}.`,
  ].join('\n\n');
}

function growthPlot(book: Book, bench: string): string {
  const places = placesOf(book, bench);
  const lines = VERBS.map((name) => ({
    name,
    values: places.map((x) => {
      const run = book.best(bench, name, 'blockferry', x);
      return run && run.wallMs / 1000;
    }),
  }));
  const { unit } = GROWTHS[bench]!;
  return drawPlot({
    title: BENCHES[bench]!.title,
    xLabel: unit,
    yLabel: 'seconds, best run',
    places: places.map(String),
    lines,
  });
}

function steps(book: Book, bench: string): string {
  const rows = book
    .of('step', bench)
    .map(({ step, bytes, bestUs, medianUs }) => [
      step,
      bytes === 0 ? '' : bytesText(bytes),
      milliseconds(bestUs / 1000),
      milliseconds(medianUs / 1000),
      bytes === 0 ? '' : gigabytesPerSecond(bytes, medianUs),
    ]);
  return table(['step', 'of', 'best', 'median', 'rate at the median'], rows);
}

function percent(share: number): string {
  return `${Math.max(1, Math.round(100 * share))} %`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), `|${head.map(() => '---|').join('')}`, ...rows.map(line)].join('\n');
}
