/** The benches by name, in the order in which they run, with what the page says of each. */
import type { Lab } from './lab.ts';
import type { RunRecord } from './record.ts';
import { calls } from './rows/calls.ts';
import { compare } from './rows/compare.ts';
import { delta } from './rows/delta.ts';
import { type GROWTHS, growth } from './rows/growth.ts';
import { kernel } from './rows/kernel.ts';
import { restore } from './rows/restore.ts';
import { sparse } from './rows/sparse.ts';
import { start } from './rows/start.ts';
import { sync } from './rows/sync.ts';
import { latency, tracker } from './rows/tracker.ts';
import { upload } from './rows/upload.ts';

export interface Bench {
  readonly title: string;
  /** What is done, in a sentence or two. */
  readonly text: string;
  readonly run: (lab: Lab) => Promise<void>;
  /** What the best run has least of; wall time unless it says otherwise. */
  readonly rank?: (run: RunRecord) => number;
}

function growing(what: string): Omit<Bench, 'run'> {
  return { title: `Growth: ${what}`, text: `All verbs, one after the other, with nothing but ${what} changing.` };
}

function growths(titles: Readonly<Record<keyof typeof GROWTHS, string>>): Readonly<Record<string, Bench>> {
  return Object.fromEntries(
    Object.entries(titles).map(([name, what]) => [name, { ...growing(what), run: (lab) => growth(lab, name) }]),
  );
}

export const BENCHES: Readonly<Record<string, Bench>> = {
  start: {
    title: 'Start of a command',
    text: 'What a command costs with next to nothing to do. It is in every figure of a command below.',
    run: start,
  },
  sync: {
    title: 'First copy',
    text: 'Read, fingerprint, compress, encrypt, send. The peers write to repositories on tmpfs; the discarding server costs a sender what a network would.',
    run: sync,
  },
  compare: {
    title: 'Compare pass',
    text: 'All of the disk is read and fingerprinted, and nothing has changed. `xxh64sum` reads and hashes on one core, with no manifest to compare with.',
    run: compare,
  },
  upload: {
    title: 'Raw upload',
    text: 'A fixed VHD becomes a page blob that a cloud machine boots from. Both sides skip zeros; here there are none. `writing` is what the server saw, from the first page to the last: azcopy looks every two seconds whether it is done, which is in its wall time.',
    run: upload,
  },
  tracker: {
    title: 'Guest writes through the tracker',
    text: 'Each write goes to the disk and to the log. qemu-nbd writes to the disk alone. CPU and memory are those of the server.',
    run: tracker,
    rank: ({ counts }) => -(counts['writesPerSecond'] ?? 0),
  },
  latency: {
    title: 'How long single guest writes take',
    text: 'A guest that writes at a steady rate, alone, and while a cycle ships a log of 1 GiB on the same two processors.',
    run: latency,
    rank: ({ counts }) => counts['p999Us'] ?? Number.POSITIVE_INFINITY,
  },
  restore: {
    title: 'Restore',
    text: 'From a folder or repository on tmpfs to a raw file on tmpfs. Every chunk is opened and verified on the way.',
    run: restore,
  },
  sparse: {
    title: 'Large disks that hold little',
    text: 'First copies to the discarding server.',
    run: sparse,
  },
  delta: {
    title: 'Bytes sent by a cycle',
    text: 'Bytes count here, not times. A resync finds what was changed behind our back; a cycle ships what the tracker has logged.',
    run: delta,
  },
  ...growths({
    'growth-size': 'the size of the disk',
    'growth-allocated': 'what is allocated',
    'growth-changed': 'what the guest writes',
    'growth-chunk': 'the size of a chunk',
    'growth-workers': 'the number of workers',
    'growth-disks': 'the number of disks',
  }),
  kernel: {
    title: 'Steps of the kernel',
    text: 'On one core. `binary` is machine code, `random` does not compress.',
    run: kernel,
  },
  calls: {
    title: 'Messages and calls',
    text: 'One at a time, so that each waits for its answer; a sync has eight calls under way.',
    run: calls,
  },
};
