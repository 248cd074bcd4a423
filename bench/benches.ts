/** The benches by name, in the order in which they run. */
import type { Lab } from './lab.ts';
import { sync } from './rows/sync.ts';

export const BENCHES: Readonly<Record<string, (lab: Lab) => Promise<void>>> = { sync };
