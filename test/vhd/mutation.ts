/** What every campaign of damaged images expects. `BLOCKFERRY_SEED` and `BLOCKFERRY_CASES` make another one of it. */
import { expect } from 'vitest';
import { checkDisk, openDisk } from '../../src/vhd/index.ts';
import { numberFromEnvironment } from '../support/dice.ts';
import { type Images, runCampaign } from '../support/hostile-run.ts';
import { MIB } from './vhd-image.ts';

const MEMORY_GROWN_BYTES_MAX = 400 * MIB;

/** Damages `images` so many times and expects no finding, and that the damage came to every rule that has a code. */
export async function expectNoFinding(
  images: Images,
  cases: number,
  checkedOneIn: number,
  codes: readonly string[],
): Promise<void> {
  const seed = numberFromEnvironment('BLOCKFERRY_SEED', 1);
  const firstCase = numberFromEnvironment('BLOCKFERRY_CASE', 0);
  const limit = numberFromEnvironment('BLOCKFERRY_CASES', cases);
  const subject = { openDisk, checkDisk };
  const report = await runCampaign({
    subject,
    ...images,
    seed,
    firstCase,
    cases: limit,
    checkedOneIn,
    findingsMax: 10,
  });
  if (limit !== cases) console.info(`seed ${seed}, cases ${firstCase} to ${firstCase + limit - 1}:`, report);
  expect(report.findings).toEqual([]);
  expect(report.memoryGrownBytes).toBeLessThan(MEMORY_GROWN_BYTES_MAX);
  if (limit < cases) return;
  expect(Object.keys(report.outcomes)).toEqual(expect.arrayContaining([...codes]));
  const { opened = 0 } = report.outcomes;
  expect(opened / limit).toBeGreaterThan(0.2);
  expect(opened / limit).toBeLessThan(0.8);
}

export const VHD_CODES: readonly string[] = [
  ...['VHD_FOOTER', 'VHD_HEADER', 'VHD_BAT', 'VHD_LOCATOR', 'DISK_TRUNCATED'],
  'CHAIN_PARENT_MISMATCH',
];
export const VHDX_CODES: readonly string[] = [
  ...['VHDX_HEADER', 'VHDX_REGION', 'VHDX_METADATA', 'VHDX_BAT', 'VHDX_BITMAP', 'VHDX_LOCATOR', 'DISK_TRUNCATED'],
  'CHAIN_PARENT_MISMATCH',
];
export const VHDX_LOG_CODES: readonly string[] = [
  'VHDX_LOG',
  'VHDX_HEADER',
  'VHDX_REGION',
  'VHDX_BAT',
  'DISK_TRUNCATED',
];
