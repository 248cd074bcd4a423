/** Five million damaged files a format, every one of them opened and checked; for hours by hand. */
import { describe, test } from 'vitest';
import { hostileVhds } from './hostile-vhd.ts';
import { hostileVhdxLogs, hostileVhdxs } from './hostile-vhdx.ts';
import { expectNoFinding, VHD_CODES, VHDX_CODES, VHDX_LOG_CODES } from './mutation.ts';

const CASES = 5_000_000;
const EVERY_ONE = 1;

describe('damaged files are read right or refused by name', { timeout: 24 * 3600_000 }, () => {
  test('VHD', async () => expectNoFinding(await hostileVhds(), CASES, EVERY_ONE, VHD_CODES));
  test('VHDX', async () => expectNoFinding(await hostileVhdxs(), CASES, EVERY_ONE, VHDX_CODES));
  test('VHDX with a log', async () => expectNoFinding(await hostileVhdxLogs(), CASES / 2, EVERY_ONE, VHDX_LOG_CODES));
});
