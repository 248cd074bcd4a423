/** Damaged VHDX files with a log to replay. */
import { test } from 'vitest';
import { hostileVhdxLogs } from './hostile-vhdx.ts';
import { expectNoFinding, VHDX_LOG_CODES } from './mutation.ts';

const CASES = 30_000;

test(`${CASES} damaged VHDX files with a log are read right or refused by name`, { timeout: 10 * 60_000 }, async () => {
  await expectNoFinding(await hostileVhdxLogs(), CASES, 20, VHDX_LOG_CODES);
});
