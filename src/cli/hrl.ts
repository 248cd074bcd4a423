/** `hrl dump|verify|replay|compact`: a toolkit for change logs. */
import type { Command } from 'commander';
import {
  ChangeLog,
  compactLogs,
  type Fact,
  fromLogTime,
  isBlockferryError,
  type LogCheck,
  openDiskForWriting,
  orderChain,
  type ReplayOptions,
  type ReplayReport,
  replayLogs,
  verifyLog,
} from '../index.ts';
import type { AddCommand, Context, Start } from './context.ts';
import { EXIT, type ExitCode, exitCodeOfFaults } from './exit-codes.ts';
import { count, formatBytes, formatTime } from './format.ts';
import { type DiskOptions, openOptions, withDiskOptions, withExample } from './options.ts';
import type { JsonRecord } from './output.ts';

export const addHrlCommands: AddCommand = (program, start) => {
  const hrl = program
    .command('hrl')
    .summary('look into change logs, check, replay and compact them')
    .description(
      'A toolkit for change logs (.hrl) in the published format of Hyper-V Replica. A log that was not closed cleanly is ' +
        'read up to where its valid prefix ends.',
    );
  addDump(hrl, start);
  addVerify(hrl, start);
  addReplay(hrl, start);
  addCompact(hrl, start);
};

function addDump(hrl: Command, start: Start): void {
  const command = hrl
    .command('dump')
    .summary('the writes of a log, in its order')
    .description('Lists the writes of a log in the order in which they were made: offset on the disk, length, time.')
    .argument('<file>', 'change log');
  withExample(command, 'blockferry hrl dump web1.hrl --json');
  command.action(async (path: string) => {
    await start(command, async (context) => {
      const { output, signal } = context;
      return await withLogs([path], context, async ([log]) => {
        if (log === undefined) return EXIT.done;
        let entries = 0;
        for await (const block of log.blocks({ signal })) {
          for (const { byteOffset, dataLength, timeStamp } of block.entries) {
            if (output.stdout.closed) return EXIT.done;
            const time = formatTime(fromLogTime(timeStamp));
            await output.result(
              { type: 'entry', byteOffset, dataLength, time },
              () => `${byteOffset}\t${dataLength}\t${time}`,
            );
            entries += 1;
          }
        }
        await output.result(logRecord(log, { entries }), () => describeLog(log, entries));
        noteIfUnclosed(log, context);
        return EXIT.done;
      });
    });
  });
}

function addVerify(hrl: Command, start: Start): void {
  const command = hrl
    .command('verify')
    .summary('every check of a log and of its data; exit 4 with the fault and its place')
    .description(
      'Checks the structure of a log and the data whose checksums its writer filled. What comes behind the first fault ' +
        'cannot be judged. Exit 0: clean, 4: there is a fault, or the log was not closed cleanly.',
    )
    .argument('<file>', 'change log');
  withExample(command, 'blockferry hrl verify web1.hrl');
  command.action(async (path: string) => {
    await start(command, async (context) => {
      const { output } = context;
      const { log, check, fault } = await examine(path, context);
      if (fault !== undefined) {
        const { offset, rule, code, numbers } = fault;
        await output.result({ type: 'fault', file: path, offset, rule, code, ...numbers }, () => {
          const inText = Object.entries(numbers).map(([name, value]) => `${name} ${value}`);
          return `${path}: offset ${offset}: ${code}: ${rule}${inText.length === 0 ? '' : ` (${inText.join(', ')})`}`;
        });
      }
      const faults = fault === undefined ? 0 : 1;
      const summary = { ...check, faults };
      await output.result(log ? logRecord(log, summary) : { type: 'log', path, ...summary }, () => [
        ...(log && check ? describeLog(log, check.entries) : []),
        `${path}: ${fault === undefined ? 'clean' : '1 fault'}`,
      ]);
      return exitCodeOfFaults(faults);
    });
  });
}

function addReplay(hrl: Command, start: Start): void {
  const command = hrl
    .command('replay')
    .summary('play a log onto a disk')
    .description(
      'Writes what a log holds onto a disk, each range once with its newest bytes. The whole log is checked before the ' +
        'first write. No machine may use the disk. Exit 3: the log was not closed cleanly, its valid prefix was played.',
    )
    .argument('<file>', 'change log')
    .requiredOption('--onto <disk>', 'VHD, VHDX or raw file to write to');
  withExample(withDiskOptions(command), 'blockferry hrl replay web1.hrl --onto web1-copy.vhdx');
  command.action(async (path: string, options: DiskOptions & { readonly onto: string }) => {
    await start(command, async (context) => {
      const { onto } = options;
      return await withLogs([path], context, async (logs) => {
        const disk = await openDiskForWriting(onto, { ...openOptions(options, context), ports: context.ports });
        let report: ReplayReport;
        try {
          report = await replayLogs(logs, disk, replayOptions(logs, context));
        } finally {
          await disk.close();
        }
        await context.output.result(
          { type: 'replay', path, onto, ...report },
          () => `${onto}: ${describeReport(report)}`,
        );
        return exitCodeOf(logs, context);
      });
    });
  });
}

function addCompact(hrl: Command, start: Start): void {
  const command = hrl
    .command('compact')
    .summary('make one log of a chain, without what was written over')
    .description(
      'Makes one log that leaves the same disk as the logs named, which must follow one another without a gap; their ' +
        'order on the command line does not matter. OUT must not exist. Exit 3: the last of them was not closed cleanly, ' +
        'its valid prefix was taken.',
    )
    .argument('<file...>', 'change logs of one chain')
    .requiredOption('--out <file>', 'log to make');
  withExample(command, 'blockferry hrl compact web1.1.hrl web1.2.hrl --out web1.all.hrl');
  command.action(async (paths: string[], options: { readonly out: string }) => {
    await start(command, async (context) => {
      const { out } = options;
      return await withLogs(paths, context, async (found) => {
        const logs = orderChain(found);
        const report = await compactLogs(logs, out, { ports: context.ports, ...replayOptions(logs, context) });
        await context.output.result(
          { type: 'compact', paths: logs.map(({ path }) => path), out, ...report },
          () => `${out}: ${describeReport(report)}`,
        );
        return exitCodeOf(logs, context);
      });
    });
  });
}

/** Opens the logs, and closes them whatever happens. */
async function withLogs(
  paths: readonly string[],
  { ports, signal }: Context,
  body: (logs: readonly ChangeLog[]) => Promise<ExitCode>,
): Promise<ExitCode> {
  const logs: ChangeLog[] = [];
  try {
    for (const path of paths) logs.push(await ChangeLog.open(path, { ports, signal }));
    return await body(logs);
  } finally {
    for (const log of logs) await log.close();
  }
}

interface Examination {
  readonly log?: ChangeLog;
  readonly check?: LogCheck;
  readonly fault?: {
    readonly code: string;
    readonly offset: number;
    readonly rule: string;
    /** What breaks the rule. */
    readonly numbers: Readonly<Record<string, Fact>>;
  };
}

/** Verifies a log; its fault is a result here, and no error. */
async function examine(path: string, context: Context): Promise<Examination> {
  let log: ChangeLog | undefined;
  try {
    log = await ChangeLog.open(path, context);
    const check = await verifyLog(log, {
      signal: context.signal,
      onProgress: (doneBytes) =>
        context.progress.update({ title: 'verify', doneBytes, totalBytes: log?.endOffset ?? doneBytes }),
    });
    if (log.isClosed) return { log, check };
    const rule = `a log is closed when its writer ends: this one was not closed cleanly; ${prefixOf(log)}`;
    return { log, check, fault: { code: 'HRL_TORN', offset: log.endOffset, rule, numbers: {} } };
  } catch (error) {
    if (!isBlockferryError(error, 'HRL_HEADER', 'HRL_BLOCK', 'HRL_ENTRY', 'HRL_TORN')) throw error;
    const { source: _, offset, rule, ...numbers } = error.facts;
    const fault = { code: error.code, offset: Number(offset), rule: String(rule), numbers };
    return { ...(log === undefined ? {} : { log }), fault };
  } finally {
    await log?.close();
  }
}

function replayOptions(logs: readonly ChangeLog[], { signal, progress }: Context): ReplayOptions {
  const totalBytes = logs.reduce((sum, { endOffset }) => sum + endOffset, 0);
  return { signal, onProgress: (title, doneBytes) => progress.update({ title, doneBytes, totalBytes }) };
}

/** Done, or partly done where a log was not closed. */
function exitCodeOf(logs: readonly ChangeLog[], context: Context): ExitCode {
  for (const log of logs) noteIfUnclosed(log, context);
  return logs.every(({ isClosed }) => isClosed) ? EXIT.done : EXIT.differences;
}

function noteIfUnclosed(log: ChangeLog, { output }: Context): void {
  if (!log.isClosed) output.note(`${log.path} was not closed cleanly; ${prefixOf(log)}, and writes behind it are lost`);
}

function prefixOf({ endOffset }: ChangeLog): string {
  return `its valid prefix ends at offset ${endOffset}`;
}

function logRecord(
  { path, header, isClosed, endOffset }: ChangeLog,
  more: Readonly<Record<string, number>>,
): JsonRecord {
  const { version, uniqueId, previousUniqueId, dataWriteGuid, timeStamp } = header;
  const ids = { uniqueId, previousUniqueId, ...(dataWriteGuid === undefined ? {} : { dataWriteGuid }) };
  const time = formatTime(fromLogTime(timeStamp));
  return { type: 'log', path, version, ...ids, time, closed: isClosed, endOffset, ...more };
}

function describeLog({ header, isClosed, endOffset }: ChangeLog, entries: number): string[] {
  return [
    `id:       ${header.uniqueId}`,
    `follows:  ${header.previousUniqueId}`,
    ...(header.dataWriteGuid === undefined ? [] : [`disk:     ${header.dataWriteGuid}`]),
    `created:  ${formatTime(fromLogTime(header.timeStamp))}`,
    `closed:   ${isClosed ? 'yes' : 'no'}`,
    `ends at:  ${endOffset}`,
    `writes:   ${entries}`,
  ];
}

function describeReport({ entries, loggedBytes, writtenBytes }: ReplayReport): string {
  return `${count(entries, 'write')}, ${formatBytes(loggedBytes)}; wrote ${formatBytes(writtenBytes)}`;
}
