/** The benches by name, in the order in which they run. */
import type { Lab } from './lab.ts';
import { compare } from './rows/compare.ts';
import { delta } from './rows/delta.ts';
import { restore } from './rows/restore.ts';
import { sparse } from './rows/sparse.ts';
import { sync } from './rows/sync.ts';
import { latency, tracker } from './rows/tracker.ts';
import { upload } from './rows/upload.ts';

export const BENCHES: Readonly<Record<string, (lab: Lab) => Promise<void>>> = {
  sync,
  compare,
  upload,
  tracker,
  latency,
  restore,
  sparse,
  delta,
};
