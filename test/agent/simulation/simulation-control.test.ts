/** Whether the simulation can fail: bugs are planted in the rules of the agent, or in the model, and each is seen. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { runSeed } from './run-seed.ts';
import { storyOf } from './story.ts';

const bug = vi.hoisted(() => ({ is: 'none' }));

vi.mock('../../../src/agent/policy/retry-ladder.ts', async (original) => {
  const real = await original<typeof import('../../../src/agent/policy/retry-ladder.ts')>();
  const nextAttempt: typeof real.nextAttempt = (firstMs, failures, endedMs) =>
    real.nextAttempt(firstMs, bug.is === 'ladder' ? failures + 1 : failures, endedMs);
  return { nextAttempt };
});

vi.mock('../../../src/agent/policy/daily-window.ts', async (original) => {
  const real = await original<typeof import('../../../src/agent/policy/daily-window.ts')>();
  const nextOpening: typeof real.nextOpening = (window, nowMs) =>
    bug.is === 'window' ? nowMs : real.nextOpening(window, nowMs);
  return { ...real, nextOpening };
});

vi.mock('../../../src/agent/policy/bandwidth-profile.ts', async (original) => {
  const real = await original<typeof import('../../../src/agent/policy/bandwidth-profile.ts')>();
  const bandwidthAt: typeof real.bandwidthAt = (profile, nowMs) =>
    bug.is === 'bandwidth' ? undefined : real.bandwidthAt(profile, nowMs);
  return { ...real, bandwidthAt };
});

vi.mock('../../../src/agent/policy/retention.ts', async (original) => {
  const real = await original<typeof import('../../../src/agent/policy/retention.ts')>();
  const pointsToDrop: typeof real.pointsToDrop = (points, policy, inUse) =>
    bug.is === 'thinning'
      ? new Set(points.slice(0, -3).map(({ id }) => id))
      : real.pointsToDrop(points, policy, bug.is === 'in use' ? new Set() : inUse);
  return { ...real, pointsToDrop };
});

vi.mock('../../../src/agent/life/remedies.ts', async (original) => {
  const real = await original<typeof import('../../../src/agent/life/remedies.ts')>();
  const isRecoverable: typeof real.isRecoverable = (code) => bug.is === 'person' || real.isRecoverable(code);
  return { ...real, isRecoverable };
});

/** The first thing that is found wrong with any of so many seeds. */
async function firstFound(seeds: number, planted: Parameters<typeof runSeed>[1] = {}): Promise<string> {
  for (let seed = 1; seed <= seeds; seed += 1) {
    const { violations } = await runSeed(storyOf(seed, 'short'), planted);
    if (violations[0] !== undefined) return violations[0];
  }
  return `nothing in ${seeds} seeds`;
}

afterEach(() => {
  bug.is = 'none';
});

describe('the simulation', () => {
  it('finds nothing where nothing is planted', async () => {
    expect(await firstFound(40)).toBe('nothing in 40 seeds');
  });

  it.each([
    ['ladder', 'a ladder that is off by one', /attempt \d+ comes/],
    ['window', 'a resync outside its window', /outside its window/],
    ['in use', 'retention that drops a point in use', /was dropped, which somebody reads/],
    ['thinning', 'retention by another rule', /nothing stands for it|was kept for/],
    ['bandwidth', 'a profile that nobody keeps', /are allowed/],
    ['person', 'a try of what only a person can mend', /is tried again/],
  ])('sees %s: %s', async (planted, _, found) => {
    bug.is = planted;
    expect(await firstFound(300)).toMatch(found);
  });

  it('sees that a point is lost under its reader', async () => {
    bug.is = 'in use';
    const seeds = Array.from({ length: 300 }, (_, i) => storyOf(i + 1, 'short'));
    const violations: string[] = [];
    for (const story of seeds) violations.push(...(await runSeed(story, { forgetsReaders: true })).violations);
    expect(violations.filter((text) => /does not restore: its baseline|does not restore: log/.test(text))).not.toEqual(
      [],
    );
  });

  it('sees a change log that is lost', async () => {
    expect(await firstFound(300, { losesLogs: true })).toMatch(/does not restore|follows/);
  });
});
