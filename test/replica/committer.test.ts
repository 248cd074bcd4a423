/** The committer: one root after the other, and what happens when somebody else was there first. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { protect, rotateKey } from '../../src/agent/index.ts';
import { Committer, ROOT_KEY, type Root, type RootChange } from '../../src/replica/index.ts';
import { noise } from '../chunker/support.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

let lab: Lab;
beforeEach(async () => {
  lab = new Lab();
  const disks = [lab.disk('disk.img', noise(CHUNK, 1))];
  await protect(lab.session, { name: 'web', disks, url: STORE_URL, chunkBytes: CHUNK, keys: [] });
});
afterEach(() => lab.close());

async function committer(): Promise<Committer> {
  return new Committer(await lab.replica(), 'test', async () => {}, lab.ports);
}

/** Another point; its id tells the change. */
function point(id: string): (root: Root) => RootChange {
  return ({ points, generation }) => ({ points: [...points, { ...points[0]!, id, generation: generation + 1 }] });
}
const ids = async (): Promise<readonly string[]> => (await lab.replica()).record.root.points.map(({ id }) => id);

describe('a commit', () => {
  it('after that of somebody else is refused', async () => {
    const [one, other] = [await committer(), await committer()];
    await one.commit(async (root) => point('one')(root));
    await expect(other.commit(async (root) => point('other')(root))).rejects.toMatchObject({ code: 'REPLICA_FENCED' });
    expect(await ids()).toEqual([expect.any(String), 'one']);
  });

  it('over any root is made over that of somebody else, and asked for anew', async () => {
    const [one, other] = [await committer(), await committer()];
    for (const n of [1, 2, 3]) await one.commit(async (root) => point(`one${n}`)(root));
    const seen: number[] = [];
    const root = await other.commitOver((now) => {
      seen.push(now.points.length);
      return point('other')(now);
    });
    expect(seen).toEqual([1, 4]);
    expect(root.points.map(({ id }) => id).slice(1)).toEqual(['one1', 'one2', 'one3', 'other']);
    expect(await ids()).toEqual(root.points.map(({ id }) => id));
    // Both go on.
    await other.commit(async (now) => point('again')(now));
    await one.commitOver(point('one4'));
    expect((await ids()).slice(-2)).toEqual(['again', 'one4']);
  });

  it('over any root is still refused by who prepares it', async () => {
    const [one, other] = [await committer(), await committer()];
    await one.commit(async (root) => point('one')(root));
    const refusal = new Error('not over this one');
    const prepare = (now: Root): RootChange => {
      if (now.points.length > 1) throw refusal;
      return point('other')(now);
    };
    await expect(other.commitOver(prepare)).rejects.toBe(refusal);
    expect(await ids()).toHaveLength(2);
  });

  it('over any root is refused when the keys are others by now, and when the root is older', async () => {
    const other = await committer();
    const { store } = await lab.replica();
    const old = (await store.get(ROOT_KEY, 1 << 24))!.bytes;
    await rotateKey(lab.session, 'web');
    await expect(other.commitOver(point('other'))).rejects.toMatchObject({ code: 'REPLICA_FENCED' });
    const late = await committer();
    await store.put(ROOT_KEY, old);
    await expect(late.commitOver(point('late'))).rejects.toMatchObject({ code: 'REPLICA_ROLLED_BACK' });
    await store.delete(ROOT_KEY);
    await expect(late.commitOver(point('late'))).rejects.toMatchObject({ code: 'REPLICA_FENCED' });
  });
});
