/** Three stores through five hundred walks by dice. */
import { test, vi } from 'vitest';
import { walk } from './mirror-walk.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const WALKS = 500;

test('every point of every store is what the guest had', { timeout: 24 * 3600_000 }, async () => {
  for (let seed = 100; seed < 100 + WALKS; seed += 1) await walk(seed, 100, seed % 2 === 0 ? 'sealed' : 'raw');
});
