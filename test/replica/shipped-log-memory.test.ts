/** A log of 1 GiB is shipped and read back in bounded memory. Run `npm run build` first, as `npm test` does. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const PROGRAM = fileURLToPath(new URL('../support/ship-gigabyte.mjs', import.meta.url));
const MEASURE = new URL('../support/peak-memory.mjs', import.meta.url).href;
const MIB = 1024 * 1024;

it('a log of 1 GiB takes less than 300 MiB of memory, and comes back whole', { timeout: 300_000 }, () => {
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--import', MEASURE, PROGRAM], { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  const { shippedMs, elapsedMs, ...found } = JSON.parse(stdout) as Record<string, number>;
  const peakMib = Math.round(Number(/peak (\d+)\n$/.exec(stderr)?.[1]) / 1024);
  console.info(`shipped in ${shippedMs} ms, read back by ${elapsedMs} ms, peak ${peakMib} MiB`);
  expect(found).toMatchObject({ frames: 1024, dataBytes: 1024 * MIB, isEqual: true });
  // Half of it compresses; a copy of all of it in memory would be seen.
  expect(found['sizeBytes']).toBeLessThan(600 * MIB);
  expect(found['sizeBytes']).toBeGreaterThan(500 * MIB);
  expect(peakMib).toBeLessThan(300);
});
