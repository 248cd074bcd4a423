import { relative } from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** The files that take longest, in that order: begun last, one of them would run alone at the end. */
const LONGEST = [
  ...['e2e/sides', 'e2e/tracking', 'crash/kill', 'e2e/round-trip', 'agent/cycles', 'vhd/vhdx-mutation'],
  ...['crash/tracking-kill', 'crash/tracking-failpoints', 'crash/failpoints', 'agent/simulation/simulation'],
  ...['e2e/tracking-peers', 'crash/sides-failpoints', 'vhd/vhdx-log-mutation', 'vhd/vhd-mutation', 'hrl/fuzz'],
  ...['e2e/agent', 'replica/apply-crash', 'e2e/mirror', 'agent/mirror-crash', 'agent/sync-crash', 'agent/sync-dirty'],
  ...['crash/gateway-failpoints', 'tracker/power-cut', 'gateway/hostile', 'agent/simulation/simulation-control'],
].map((name) => `test/${name}.test.ts`);

// Tests talk to this machine alone, and start processes by the thousand: each would read all of these certificates first.
delete process.env['NODE_EXTRA_CA_CERTS'];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const place = LONGEST.indexOf(relative(this.ctx.config.root, moduleId).replaceAll('\\', '/'));
      return place === -1 ? LONGEST.length : place;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/**/*.slow.test.ts'],
    testTimeout: 240_000,
    hookTimeout: 60_000,
    pool: 'forks',
    // Packages come in as Node brings them in; else each use of one goes through a proxy.
    deps: { interopDefault: false },
    // One more than the processors of a small machine: many tests wait for disks and for other programs.
    maxWorkers: 3,
    sequence: { sequencer: LongestFirst },
    coverage: { include: ['src/**'], reporter: ['text-summary', 'html'] },
  },
});
