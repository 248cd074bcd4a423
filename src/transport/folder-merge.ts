/**
 * Handing the old content of a snapshot that is being deleted down to the next older one, which still needs it wherever
 * it holds nothing of its own. Repeating it after a crash adds nothing twice.
 */
import type { FileSystem } from '../ports.ts';
import { newRecord, oldBytesOf, UNDO_GRANULE_BYTES, UndoFile } from './folder-undo.ts';
import { isAllZero } from './folder-zeros.ts';
import { allDone } from './gate.ts';

/** Granules of one record; with `RECORDS_AT_ONCE` it bounds memory to 16 MiB. */
const RECORD_GRANULES = 64;
const RECORDS_AT_ONCE = 4;

export interface Merge {
  readonly from: string;
  readonly fromNumber: number;
  readonly into: string;
  readonly intoNumber: number;
  readonly sizeBytes: number;
}

/** Returns when `into` durably holds what `from` holds. */
export async function mergeInto(files: FileSystem, merge: Merge): Promise<void> {
  const from = await UndoFile.openAt(files, merge.from, 'read', merge.fromNumber, merge.sizeBytes);
  try {
    const into = await UndoFile.openAt(files, merge.into, 'modify', merge.intoNumber, merge.sizeBytes);
    try {
      await into.settle();
      await handDownAll(from, into);
    } finally {
      await into.close();
    }
  } finally {
    await from.close();
  }
}

async function handDownAll(from: UndoFile, into: UndoFile): Promise<void> {
  const missing = Uint32Array.from([...from.granules].filter((granule) => !into.holds(granule))).sort();
  let batch: Promise<void>[] = [];
  for (const run of runsOf(missing)) {
    batch.push(handDown(from, into, run));
    if (batch.length === RECORDS_AT_ONCE) {
      await allDone(batch);
      batch = [];
    }
  }
  await allDone(batch);
}

interface Run {
  readonly firstGranule: number;
  readonly granules: number;
}

function* runsOf(granules: Uint32Array): Generator<Run> {
  for (let i = 0; i < granules.length; ) {
    const start = i;
    const first = granules[start] as number;
    do i += 1;
    while (i < granules.length && granules[i] === first + i - start && i - start < RECORD_GRANULES);
    yield { firstGranule: first, granules: i - start };
  }
}

async function handDown(from: UndoFile, into: UndoFile, { firstGranule, granules }: Run): Promise<void> {
  const record = newRecord(granules);
  const bytes = oldBytesOf(record);
  for (let i = 0; i < granules; i += 1) {
    const granule = bytes.subarray(i * UNDO_GRANULE_BYTES, (i + 1) * UNDO_GRANULE_BYTES);
    await from.read(firstGranule + i, 0, granule);
  }
  const zeros = isAllZero(bytes);
  await into.append({ firstGranule, granules, record: zeros ? undefined : record });
}
