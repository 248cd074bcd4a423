/**
 * kill -9 of the real program at every failpoint of protect and resync on the folder store (which has failpoints of its own):
 * of a first copy in one layout, of a resync in the other. The list is walked whole: a failpoint that no run reaches fails. By
 * hand both are walked in both layouts, and a resync is also killed at a later hit.
 */
import { describe, expect, it } from 'vitest';
import { FAILPOINT_NAMES, type FailpointName } from '../../src/ports.ts';
import { numberFromEnvironment } from '../support/dice.ts';
import { Lineage } from './lineage.ts';

type Layout = 'sealed' | 'raw';
const WHOLE = numberFromEnvironment('BLOCKFERRY_KILLS', 1) > 1;
const layouts = (one: Layout): readonly Layout[] => (WHOLE ? ['sealed', 'raw'] : [one]);

/** Failpoints of other verbs; they have their tests there. */
const ELSEWHERE: readonly FailpointName[] = [
  ...(['restore.after-data', 'restore.after-logs', 'restore.after-rename', 'key.after-keyring'] as const),
  ...(['stage.after-chunks', 'stage.after-index', 'stage.after-complete'] as const),
  ...(['lay.after-write', 'lay.after-sync'] as const),
  ...(['planned.after-stop', 'planned.after-proof', 'commit.after-tracking'] as const),
  ...(['ship.after-part', 'ship.after-upload'] as const),
  ...(['gateway.after-staging', 'gateway.after-queue', 'gateway.after-upload'] as const),
  ...(['apply.after-intent', 'apply.after-slots', 'apply.after-pages', 'apply.after-snapshots'] as const),
  ...(['mirror.after-intent', 'mirror.after-slots', 'mirror.after-pages', 'mirror.after-snapshots'] as const),
  'mirror.after-log',
  ...(['track.before-barrier', 'track.after-barrier', 'ship.before-acknowledge'] as const),
  ...(['hrl.after-create', 'hrl.after-block', 'hrl.after-sync', 'hrl.after-data', 'hrl.after-close'] as const),
];
/** Reached by the first protect only. */
const FIRST_ONLY: readonly FailpointName[] = [
  'protect.after-claim',
  'protect.after-description',
  'protect.after-keyring',
  'protect.after-blobs',
];
/** Reached only once there is a snapshot to preserve for. */
const LATER_ONLY: readonly FailpointName[] = ['folder.after-undo'];

const url = (directory: string): string => `file://${directory}/store`;

async function crashAt(
  lineage: Lineage,
  verb: 'protect' | 'resync',
  name: FailpointName,
  hit: number,
): Promise<boolean> {
  const { result, killed } = await lineage.run(verb, { failpoints: `${name}:${hit}=kill` });
  if (!killed) expect(result.code, result.stderr).toBe(0);
  await lineage.check();
  return killed;
}

describe('killed at every failpoint', () => {
  const names = FAILPOINT_NAMES.filter((name) => !ELSEWHERE.includes(name));

  it.each(layouts('sealed'))('the first copy resumes, layout %s', { timeout: 300_000 }, async (layout) => {
    const lineage = await Lineage.begin({ url, layout, seed: 1, diskMib: 20 });
    try {
      for (const name of names.filter((n) => !LATER_ONLY.includes(n))) {
        const killed = await crashAt(lineage, 'protect', name, 1);
        // Others may find nothing left to do, once a run was killed behind its commit; the resync below reaches them.
        if (FIRST_ONLY.includes(name)) expect(killed, name).toBe(true);
      }
      const { result } = await lineage.run('protect');
      expect(result.code, result.stderr).toBe(0);
      expect(await lineage.isCurrent()).toBe(true);
    } finally {
      await lineage.end();
    }
  });

  it.each(layouts('raw'))('a resync resumes, layout %s', { timeout: 300_000 }, async (layout) => {
    const lineage = await Lineage.begin({ url, layout, seed: 2, diskMib: 20 });
    try {
      expect((await lineage.run('protect')).result.code).toBe(0);
      await lineage.check();
      for (const name of names.filter((n) => !FIRST_ONLY.includes(n))) {
        await lineage.change();
        expect(await crashAt(lineage, 'resync', name, 1), name).toBe(true);
        // A later hit differs in what was committed before it.
        if (WHOLE) await crashAt(lineage, 'resync', name, 1 + lineage.dice.between(1, 3));
        const { result } = await lineage.run('resync');
        expect(result.code, result.stderr).toBe(0);
        expect(await lineage.isCurrent(), name).toBe(true);
      }
    } finally {
      await lineage.end();
    }
  });
});
