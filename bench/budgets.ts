/**
 * The budgets: what blockferry is held to beside others on the same input, as ratios of what was measured in one run, and what stands
 * in the way where one is missed, by measurement.
 */
import type { Book } from './book.ts';
import { gigabytesPerSecond, milliseconds } from './format.ts';
import { KIB, MIB } from './lab.ts';
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

/** CPU time of one write, as a sentence: ours and theirs. */
function perWrite(task: string, bytes: number): Budget['bound'] {
  return (book, ours) => {
    const each = (run: RunRecord): string =>
      `${((run.cpuMs * 1000 * bytes) / run.counts['writtenBytes']!).toFixed(1)} µs`;
    const theirs = book.best('tracker', task, 'qemu-nbd');
    return `A write costs ${each(ours)} of CPU${theirs ? `, one of qemu-nbd ${each(theirs)}` : ''}: it is received, and written twice, to the log and to the disk, by a server whose protocol runs in one thread; fio takes the other processor.`;
  };
}

const FIRST_COPY = ['sync', 'first copy'] as const;
const UPLOAD = ['upload', 'raw'] as const;

/** What the requests of a first copy cost, as a sentence: a chunk is a page write of its own wherever a gap lies behind it. */
function requestsOf(book: Book, ours: RunRecord): string {
  const call = book.step('calls', 'page write of 256 KiB to the discarding server');
  if (!call) return '';
  const each = milliseconds(call.medianUs / 1000);
  return ` ${ours.counts['requests']} requests leave from one thread, and one of 256 KiB takes ${each} with the server.`;
}

const firstCopyBound: Budget['bound'] = (book, ours) =>
  `Compression, sealing and requests: ${sealing(book)}.${requestsOf(book, ours)}${startOf(book, 'protect', ours)}`;

const compareBound: Budget['bound'] = (book, ours) =>
  `Reading and fingerprinting: one core fingerprints at ${rateOf(book, 'fingerprint xxh128')} what is in its cache, and finds a chunk unchanged at ${rateOf(book, 'chunk found unchanged')}.${startOf(book, 'resync', ours)}`;

const uploadBound: Budget['bound'] = (book, ours) => {
  const call = book.step('calls', 'page write of 4 MiB to the discarding server');
  const cost = call
    ? ` One write of 4 MiB takes ${milliseconds(call.medianUs / 1000)}, checksum, HTTP and the kernel's copies on both sides.`
    : '';
  return `Sending: bodies leave from one thread, and the server that receives them takes the other processor.${cost}${startOf(book, 'protect', ours)}`;
};

export const BUDGETS: readonly Budget[] = [
  {
    work: 'first copy of 1 GiB of real content, sealed, to a discarding store',
    reference: 'restic backup',
    demand: '3× as fast',
    judge: faster(FIRST_COPY, 'restic', 3),
    bound: firstCopyBound,
  },
  {
    work: 'the same',
    reference: 'borg create (lz4, fixed chunks)',
    demand: '3× as fast',
    judge: faster(FIRST_COPY, 'borg', 3),
    bound: firstCopyBound,
  },
  {
    work: 'compare pass of 1 GiB, nothing changed',
    reference: 'xxh64sum',
    demand: '1.0× as fast',
    judge: faster(['compare', 'nothing changed'], 'xxh64sum', 1),
    bound: compareBound,
  },
  {
    work: 'the same, 4 GiB',
    reference: 'xxh64sum',
    demand: '1.0× as fast',
    judge: faster(['compare', 'nothing changed, 4 GiB'], 'xxh64sum', 1),
    bound: compareBound,
  },
  {
    work: 'compare pass of 1 GiB, nothing changed',
    reference: 'rsync --inplace --no-whole-file',
    demand: '3× as fast',
    judge: faster(['compare', 'nothing changed'], 'rsync', 3),
    bound: compareBound,
  },
  {
    work: 'raw upload of a fixed VHD to a discarding server',
    reference: 'azcopy',
    demand: '1.5× as fast',
    judge: faster(UPLOAD, 'azcopy', 1.5),
    bound: uploadBound,
  },
  {
    work: 'the same, as the server saw it: from the first page to the last',
    reference: 'azcopy',
    demand: '1.5× as fast',
    judge: faster(UPLOAD, 'azcopy', 1.5, ({ counts }) => counts['writingMs']!),
    bound: uploadBound,
  },
  {
    work: 'the same, in CPU seconds',
    reference: 'azcopy',
    demand: 'a quarter',
    judge: faster(UPLOAD, 'azcopy', 4, cpu),
    bound: uploadBound,
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
    judge: faster(['restore', 'full'], 'restic', 3),
    bound: (book, ours) =>
      `Opening and writing: one core opens chunks of binaries at ${rateOf(book, 'chunk opened, lz4, binary')}.${startOf(book, 'failover', ours)}`,
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
