/** Three stores through a few walks by dice; many more of them in `mirror-walk.slow.test.ts`. */
import { test, vi } from 'vitest';
import { walk } from './mirror-walk.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

test.each([
  [1, 'sealed'],
  [2, 'raw'],
] as const)('every point of every store is what the guest had, walk %i, layout %s', async (seed, layout) => {
  await walk(seed, 25, layout);
});
