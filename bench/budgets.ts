/**
 * The budgets: what blockferry is held to beside others on the same input, as ratios of what was measured in one run, and what stands
 * in the way where one is missed, by measurement.
 */
import type { Book } from './book.ts';
import { gigabytesPerSecond, milliseconds } from './format.ts';
import { KIB, MIB } from './lab.ts';
import { LIMITS } from './limits.ts';
import type { RunRecord } from './record.ts';

/** A figure beside its limit. */
export interface Judged {
  readonly value: number;
  readonly limit: number;
  readonly sense: 'at least' | 'at most';
  /** The value, or what else says more. */
  readonly text: string;
  /** The run of ours that it is about. */
  readonly ours: RunRecord;
}

export interface Budget {
  readonly work: string;
  readonly reference: string;
  readonly demand: string;
  /** Undefined where one of the two did not run. */
  readonly judge: (book: Book) => Judged | undefined;
  /** What bounds it. */
  readonly bound: (book: Book, ours: RunRecord) => string;
}

export function isMet({ value, limit, sense }: Judged): boolean {
  return sense === 'at least' ? value >= limit : value <= limit;
}

/** By how much of the limit it is missed. */
export function missedBy({ value, limit, sense }: Judged): number {
  return sense === 'at least' ? 1 - value / limit : value / limit - 1;
}

const OURS = 'blockferry';
const wall = ({ wallMs }: RunRecord): number => wallMs;
const cpu = ({ cpuMs }: RunRecord): number => cpuMs;
const writing = ({ counts }: RunRecord): number => counts['writingMs']!;
const times = (ratio: number): string => `${ratio.toFixed(2)}×`;

/** How many times as much the rival needs. */
function faster(
  [bench, task]: readonly [string, string],
  rival: string,
  limit: number,
  needs: (run: RunRecord) => number = wall,
): Budget['judge'] {
  return (book) => {
    const [ours, theirs] = [book.best(bench, task, OURS), book.best(bench, task, rival)];
    if (!ours || !theirs) return undefined;
    const value = needs(theirs) / needs(ours);
    return { value, limit, sense: 'at least', text: times(value), ours };
  };
}

/** The share of the rival's writes in the same time. */
function writes(task: string, limit: number): Budget['judge'] {
  return (book) => {
    const [ours, theirs] = [book.best('tracker', task, OURS), book.best('tracker', task, 'qemu-nbd')];
    if (!ours || !theirs) return undefined;
    const value = ours.counts['writesPerSecond']! / theirs.counts['writesPerSecond']!;
    return { value, limit, sense: 'at least', text: times(value), ours };
  };
}

/** One thing that was counted, per other. */
function counted(contestant: string, above: string, below: string, limit: number): Budget['judge'] {
  return (book) => {
    const ours = book.best('delta', '1 % changed', contestant);
    if (!ours) return undefined;
    const value = ours.counts[above]! / ours.counts[below]!;
    return { value, limit, sense: 'at most', text: `${value.toFixed(3)}×`, ours };
  };
}

/** What a command costs on a disk of 1 MiB, as a sentence. */
function startOf(book: Book, command: 'protect' | 'resync' | 'failover', ours: RunRecord): string {
  const start = book.best('start', 'a disk of 1 MiB', command);
  if (!start) return '';
  const share = Math.round((100 * start.wallMs) / ours.wallMs);
  return ` ${milliseconds(start.wallMs)} of the ${milliseconds(ours.wallMs)}, ${share} %, are what the command costs on a disk of 1 MiB.`;
}

/** The rate of a step of the kernel, as a phrase. */
function rateOf(book: Book, step: string): string {
  const found = book.step('kernel', `${step}; 256 KiB`);
  return found ? gigabytesPerSecond(found.bytes, found.medianUs) : 'an unknown rate';
}

function sealing(book: Book): string {
  return `one core compresses at ${rateOf(book, 'lz4 compress, binary')}, seals at ${rateOf(book, 'xaes seal')}, fingerprints at ${rateOf(book, 'fingerprint xxh128')}`;
}

/** What a program that does `doing` and nothing else needs, beside the rival, as a sentence. */
function bare(
  [bench, task]: readonly [string, string],
  limit: string,
  doing: string,
  rival: string,
  needs: (run: RunRecord) => number = wall,
): (book: Book) => string {
  return (book) => {
    const [least, theirs] = [book.best(bench, task, limit), book.best(bench, task, rival)];
    if (!least) return '';
    const ratio = theirs ? `, which would be ${times(needs(theirs) / needs(least))}` : '';
    return `${doing}, and nothing else, takes ${milliseconds(needs(least))} in Node on this machine${ratio}.`;
  };
}

/** CPU time of one write, as a sentence: ours, theirs, and that of a server which writes nothing. */
function perWrite(task: string, bytes: number): Budget['bound'] {
  return (book, ours) => {
    const each = (run: RunRecord): string =>
      `${((run.cpuMs * 1000 * bytes) / run.counts['writtenBytes']!).toFixed(1)} µs`;
    const [theirs, least] = [book.best('tracker', task, 'qemu-nbd'), book.best('tracker', task, LIMITS.serve)];
    const rate = (run: RunRecord): number => run.counts['writesPerSecond']!;
    const bound = least
      ? ` Our NBD server over a device that forgets what is written takes ${each(least)}${theirs ? `, and answers ${times(rate(least) / rate(theirs))} as many as qemu-nbd, which writes them` : ''}: receiving in Node is that much of it, the rest is the disk and the log.`
      : '';
    return `A write costs ${each(ours)} of CPU${theirs ? `, one of qemu-nbd ${each(theirs)}` : ''}; fio takes the other processor.${bound}`;
  };
}

const FIRST_COPY = ['sync', 'first copy'] as const;
const UPLOAD = ['upload', 'raw'] as const;
const RESTORE = ['restore', 'full'] as const;

/** What requests cost, as a sentence: ours leave from one thread, and the server has its part of the same processors. */
function requestsOf(ours: RunRecord): string {
  const { requests, puts, serverCpuMs } = ours.counts;
  if (serverCpuMs === undefined) return '';
  const both = (ours.cpuMs + serverCpuMs) / ours.wallMs;
  return ` ${requests ?? puts} requests cost the discarding server ${milliseconds(serverCpuMs)} of CPU: together ${both.toFixed(1)} processors are busy.`;
}

function firstCopyBound(rival: string): Budget['bound'] {
  const least = bare(FIRST_COPY, LIMITS.compress, 'Reading the disk and compressing its chunks', rival);
  return (book, ours) =>
    `${least(book)} Beside that, ${sealing(book)}.${requestsOf(ours)}${startOf(book, 'protect', ours)}`;
}

function compareBound(task: string, rival: string): Budget['bound'] {
  const least = bare(['compare', task], LIMITS.read, 'Reading the disk with two threads', rival);
  return (book, ours) =>
    `${least(book)} One core fingerprints at ${rateOf(book, 'fingerprint xxh128')} what is in its cache, and finds a chunk unchanged at ${rateOf(book, 'chunk found unchanged')}.${startOf(book, 'resync', ours)}`;
}

function uploadBound(needs?: (run: RunRecord) => number): Budget['bound'] {
  const least = bare(UPLOAD, LIMITS.send, 'Reading the disk and sending it', 'azcopy', needs);
  return (book, ours) => `${least(book)}${requestsOf(ours)}${startOf(book, 'protect', ours)}`;
}

export const BUDGETS: readonly Budget[] = [
  {
    work: 'first copy of 1 GiB of real content, sealed, to a discarding store',
    reference: 'restic backup',
    demand: '3× as fast',
    judge: faster(FIRST_COPY, 'restic', 3),
    bound: firstCopyBound('restic'),
  },
  {
    work: 'the same',
    reference: 'borg create (lz4, fixed chunks)',
    demand: '3× as fast',
    judge: faster(FIRST_COPY, 'borg', 3),
    bound: firstCopyBound('borg'),
  },
  {
    work: 'compare pass of 1 GiB, nothing changed',
    reference: 'xxh64sum',
    demand: '1.0× as fast',
    judge: faster(['compare', 'nothing changed'], 'xxh64sum', 1),
    bound: compareBound('nothing changed', 'xxh64sum'),
  },
  {
    work: 'the same, 4 GiB',
    reference: 'xxh64sum',
    demand: '1.0× as fast',
    judge: faster(['compare', 'nothing changed, 4 GiB'], 'xxh64sum', 1),
    bound: compareBound('nothing changed, 4 GiB', 'xxh64sum'),
  },
  {
    work: 'compare pass of 1 GiB, nothing changed',
    reference: 'rsync --inplace --no-whole-file',
    demand: '3× as fast',
    judge: faster(['compare', 'nothing changed'], 'rsync', 3),
    bound: compareBound('nothing changed', 'rsync'),
  },
  {
    work: 'raw upload of a fixed VHD to a discarding server',
    reference: 'azcopy',
    demand: '1.5× as fast',
    judge: faster(UPLOAD, 'azcopy', 1.5),
    bound: uploadBound(),
  },
  {
    work: 'the same, as the server saw it: from the first page to the last',
    reference: 'azcopy',
    demand: '1.5× as fast',
    judge: faster(UPLOAD, 'azcopy', 1.5, writing),
    bound: uploadBound(writing),
  },
  {
    work: 'the same, in CPU seconds',
    reference: 'azcopy',
    demand: 'a quarter',
    judge: faster(UPLOAD, 'azcopy', 4, cpu),
    bound: uploadBound(cpu),
  },
  {
    work: 'guest writes of 4 KiB, logged',
    reference: 'qemu-nbd without a log',
    demand: '0.8× as many',
    judge: writes('4 KiB', 0.8),
    bound: perWrite('4 KiB', 4 * KIB),
  },
  {
    work: 'guest writes of 64 KiB, logged',
    reference: 'qemu-nbd without a log',
    demand: '1.0× as many',
    judge: writes('64 KiB', 1),
    bound: perWrite('64 KiB', 64 * KIB),
  },
  {
    work: 'guest writes of 1 MiB, logged',
    reference: 'qemu-nbd without a log',
    demand: '0.6× as many',
    judge: writes('1 MiB', 0.6),
    bound: perWrite('1 MiB', MIB),
  },
  {
    work: 'restore of 1 GiB of real content',
    reference: 'restic restore',
    demand: '3× as fast',
    judge: faster(RESTORE, 'restic', 3),
    bound: (book, ours) =>
      `${bare(RESTORE, LIMITS.copy, 'Reading as much and writing it', 'restic')(book)} One core opens chunks of binaries at ${rateOf(book, 'chunk opened, lz4, binary')}.${startOf(book, 'failover', ours)}`,
  },
  {
    work: 'first copy of an empty 64 TiB VHDX',
    reference: '2 s',
    demand: 'less',
    judge: (book) => {
      const ours = book.best('sparse', 'empty', 'empty 64 TiB');
      return ours && { value: ours.wallMs, limit: 2000, sense: 'at most', text: milliseconds(ours.wallMs), ours };
    },
    bound: (book, ours) => `The block table has to be read.${startOf(book, 'protect', ours)}`,
  },
  {
    work: 'first copy of a 2 TiB dynamic disk holding 1 GiB',
    reference: 'the same 1 GiB in a 1 GiB disk',
    demand: 'within 1.2×',
    judge: (book) => {
      const [small, ours] = ['1 GiB in 1 GiB', '1 GiB in 2 TiB'].map((name) =>
        book.best('sparse', '1 GiB of content', name),
      );
      if (!small || !ours) return undefined;
      const value = ours.wallMs / small.wallMs;
      return { value, limit: 1.2, sense: 'at most', text: times(value), ours };
    },
    bound: () => 'The block table and the manifest pages of a disk that large.',
  },
  {
    work: 'resident memory of any command on this page',
    reference: '300 MiB',
    demand: 'less',
    judge: (book) => {
      const own = book.of('run').filter(({ command }) => command.startsWith('blockferry'));
      const ours = [...own].sort((a, b) => b.peakMib - a.peakMib)[0];
      if (!ours) return undefined;
      const text = `${Math.round(ours.peakMib)} MiB (${ours.bench})`;
      return { value: ours.peakMib, limit: 300, sense: 'at most', text, ours };
    },
    bound: (_, { bench, task, command }) => `The most was taken by ${bench}, ${task}: \`${command}\`.`,
  },
  {
    work: 'bytes sent by a cycle',
    reference: 'bytes that the guest wrote',
    demand: 'within 1.1×',
    judge: counted('ship', 'sentBytes', 'changedBytes', 1.1),
    bound: () => 'Headers and tags of the frames.',
  },
  {
    work: 'chunks sent by a resync, sealed',
    reference: 'chunks that were touched',
    demand: 'one for one',
    judge: counted('resync, sealed', 'sentChunks', 'touchedChunks', 1),
    bound: () => 'A chunk is sealed whole.',
  },
  {
    work: 'bytes sent by a resync, raw',
    reference: '4 KiB for each 4 KiB that was touched',
    demand: 'one for one',
    judge: counted('resync, raw', 'sentBytes', 'changedBytes', 1),
    bound: () => 'A base of layout raw is compared in pieces of 4 KiB.',
  },
];
