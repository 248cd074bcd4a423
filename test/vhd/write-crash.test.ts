/** Power cuts after every operation of in-place writes, and the proof that each sync is needed. */
import { expect, test } from 'vitest';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import { type CrashPlan, type CrashReport, crashRun, type SyncRole } from './crash-lab.ts';
import { testPorts } from './vhd-image.ts';
import { type DiskKind, makeDisk } from './write-model.ts';

const KIB = 1024;
const MIB: number = 1024 * KIB;
const seed = numberFromEnvironment('BLOCKFERRY_SEED', 1);
const runs = numberFromEnvironment('BLOCKFERRY_CASES', 1);
const ACTIONS = 24;

const VHD_BLOCK = 64 * KIB;
const RAW: DiskKind = { name: 'raw', format: 'raw', subformat: 'fixed', sizeBytes: 100 * KIB };
const FIXED_VHD: DiskKind = { name: 'fixed VHD', format: 'vhd', subformat: 'fixed', sizeBytes: 100 * KIB };
const DYNAMIC_VHD: DiskKind = {
  ...{ name: 'dynamic VHD', format: 'vhd', subformat: 'dynamic' },
  ...{ sizeBytes: 5 * VHD_BLOCK + 512, blockSizeBytes: VHD_BLOCK },
};
const VHD_CHAIN: DiskKind = { ...DYNAMIC_VHD, name: 'VHD chain', subformat: 'differencing', parents: 1 };
const FIXED_VHDX: DiskKind = {
  ...{ name: 'fixed VHDX', format: 'vhdx', subformat: 'fixed' },
  ...{ sizeBytes: 2 * MIB + 512, blockSizeBytes: MIB },
};
const DYNAMIC_VHDX: DiskKind = { ...FIXED_VHDX, name: 'dynamic VHDX', subformat: 'dynamic' };
const LARGE_SECTORS: DiskKind = {
  ...{ name: 'dynamic VHDX, 4 KiB sectors', format: 'vhdx', subformat: 'dynamic' },
  ...{ sizeBytes: 2 * MIB + 4096, blockSizeBytes: MIB, logicalSectorBytes: 4096 },
};
const VHDX_CHAIN: DiskKind = { ...DYNAMIC_VHDX, name: 'VHDX chain', subformat: 'differencing', parents: 1 };

async function run(kind: DiskKind, runSeed: number, options: Partial<CrashPlan>) {
  const ports = testPorts();
  const { path, parentPaths, content } = await makeDisk(ports, '/disks', kind, new Dice(runSeed, 7));
  const before = new Map([path, ...parentPaths].map((name) => [name, ports.files.get(name)!]));
  return await crashRun({ kind, path, seed: runSeed, actions: ACTIONS, ...options }, before, content);
}

test.for([RAW, FIXED_VHD, DYNAMIC_VHD, VHD_CHAIN, FIXED_VHDX, DYNAMIC_VHDX, LARGE_SECTORS, VHDX_CHAIN])(
  '$name: after a power cut at any operation the image opens, passes the check, and has lost nothing flushed',
  async (kind) => {
    let cuts = 0;
    // A VHDX has more to look at after each cut.
    const times = kind.format === 'vhdx' ? runs : 4 * runs;
    for (let i = 0; i < times; i += 1) {
      const report = await run(kind, seed + i, { secondLifeOneIn: 25 });
      expect(report.faults).toEqual([]);
      cuts += report.cuts;
    }
    expect(cuts).toBeGreaterThan(ACTIONS);
  },
);

interface Control extends Partial<CrashPlan> {
  readonly kind: DiskKind;
  readonly dropped: SyncRole;
  readonly what: string;
}

const CONTROLS: readonly Control[] = [
  { kind: RAW, dropped: 'flush 1', what: 'that of a flush' },
  { kind: DYNAMIC_VHD, dropped: 'step', what: 'that of a moved footer' },
  { kind: DYNAMIC_VHD, dropped: 'flush 1', what: 'that of the data before the table' },
  { kind: DYNAMIC_VHD, dropped: 'flush 2', what: 'that of the table' },
  { kind: VHD_CHAIN, dropped: 'flush 1', what: 'that of the data before the bitmaps' },
  { kind: DYNAMIC_VHDX, dropped: 'flush 1', what: 'that of the data before the log' },
  { kind: DYNAMIC_VHDX, dropped: 'flush 2', what: 'that of the log' },
  {
    kind: { ...VHDX_CHAIN, isEmpty: true },
    ...{ dropped: 'flush 3', onlyAtClose: true, actions: 2, what: 'that of the pages before the log is given up' },
  },
  { kind: DYNAMIC_VHDX, dropped: 'step', droppedInLife: 2, secondLifeOneIn: 3, what: 'those of the headers' },
];

test.for(CONTROLS)('$kind.name: without one sync, $what, power cuts do harm', async ({ kind, what: _, ...control }) => {
  let report: CrashReport = { cuts: 0, faults: [] };
  for (let i = 0; i < 100 && report.faults.length === 0; i += 1) {
    report = await run(kind, 100 * seed + i, control);
  }
  expect(report.faults).not.toEqual([]);
});
