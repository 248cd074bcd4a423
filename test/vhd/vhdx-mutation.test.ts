/** Damaged VHDX files without a log to replay. */
import { test } from 'vitest';
import { hostileVhdxs } from './hostile-vhdx.ts';
import { expectNoFinding, VHDX_CODES } from './mutation.ts';

const CASES = 170_000;

test(`${CASES} damaged VHDX files are read right or refused by name`, { timeout: 10 * 60_000 }, async () => {
  await expectNoFinding(await hostileVhdxs(), CASES, 20, VHDX_CODES);
});
