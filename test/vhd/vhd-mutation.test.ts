/** Damaged VHD files. */
import { test } from 'vitest';
import { hostileVhds } from './hostile-vhd.ts';
import { expectNoFinding, VHD_CODES } from './mutation.ts';

const CASES = 200_000;

test(`${CASES} damaged VHD files are read right or refused by name`, { timeout: 10 * 60_000 }, async () => {
  await expectNoFinding(await hostileVhds(), CASES, 3, VHD_CODES);
});
