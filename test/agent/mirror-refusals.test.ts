/** What mirror refuses: to guess which side is right, to lose a key, to carry damage on. Then the follower stays as it was. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { loadConfig } from '../../src/agent/daemon/index.ts';
import { followOperations } from '../../src/agent/daemon/operations.ts';
import { addKey, apply, cancel, mirror, prune, removeKey, rotateKey, ship, status } from '../../src/agent/index.ts';
import { LocalItem } from '../../src/agent/local-state.ts';
import type { MirrorReport, Session } from '../../src/agent/types.ts';
import { assertReplicating, baseKey, Committer, generateKeyFile, logKey } from '../../src/replica/index.ts';
import { addEpoch } from '../../src/replica/keyring.ts';
import { noise, prose } from '../chunker/support.ts';
import { FIRST_URL, MirrorLab, SECOND_URL } from '../support/mirror-lab.ts';
import { CHUNK } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

let item: MirrorLab;
afterEach(() => item.close());

async function begin(layout: 'sealed' | 'raw' = 'sealed'): Promise<void> {
  item = new MirrorLab([Buffer.concat([noise(CHUNK, 1), prose(CHUNK, 2), Buffer.alloc(CHUNK), noise(CHUNK, 3)])]);
  await item.protect(layout);
  await item.write(10);
  await item.mirror();
}

/** From the second store to the first, as after a failover from the second. */
async function back(discardNewer = false): Promise<MirrorReport> {
  const reference = {
    name: 'web',
    url: SECOND_URL,
    keys: (await new LocalItem(item.session.home, 'web', item.lab.ports.files).load()).keys,
  };
  const [report] = await mirror(item.session, reference, { to: FIRST_URL, discardNewer });
  return report!;
}

describe('sides', () => {
  it('a follower is written by nothing but mirror', async () => {
    await begin();
    const { root } = (await item.replicaAt()).record;
    expect(() => assertReplicating(root, root.owner.side)).toThrow(
      expect.objectContaining({ code: 'REPLICA_OTHER_SIDE' }),
    );
    await item.shipTo(SECOND_URL);
    await expect(ship(item.session, 'web')).rejects.toMatchObject({
      code: expect.stringMatching(/REPLICA_OTHER_SIDE|ILLEGAL_STATE/),
    });
    await expect(prune(item.session, 'web', { drop: new Set(await item.pointsAt()) })).rejects.toMatchObject({
      code: 'REPLICA_OTHER_SIDE',
    });
    expect((await apply(item.session, { name: 'web' })).appliedLogs).toBe(0);
  });

  it('a store that its owner writes is no follower', async () => {
    await begin();
    await expect(back()).rejects.toMatchObject({ code: 'REPLICA_OTHER_SIDE' });
  });

  it('the same store by another name is refused', async () => {
    await begin();
    await expect(item.mirror({ to: 'file:///memory/x/../store' })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(item.mirror({ to: FIRST_URL })).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('once another side took over in the second store, nothing of the first is carried there', async () => {
    await begin();
    const points = await item.pointsAt();
    await item.takeOver(SECOND_URL, points.at(-1)!, 7);
    expect((await item.replicaAt()).record.root.follows).toBeUndefined();
    await item.write(20);
    const before = (await item.replicaAt()).record.hash;
    await expect(item.mirror()).rejects.toMatchObject({ code: 'SPLIT_BRAIN' });
    await expect(item.mirror({ discardNewer: true })).rejects.toMatchObject({ code: 'SPLIT_BRAIN' });
    expect((await item.replicaAt()).record.hash).toEqual(before);
  });

  it('an agent that carries to the list of its configuration writes it into the home, until the home replicates elsewhere', async () => {
    await begin();
    const text = `machines: [{ name: web, disks: [a.raw], to: ["${FIRST_URL}", "${SECOND_URL}"] }]`;
    const [machine] = loadConfig(text, '/memory/agent.yaml').machines;
    const { mirror: carry } = followOperations(item.session, machine!, FIRST_URL, SECOND_URL);
    const { signal } = new AbortController();
    const bandwidth = { take: async () => {} };
    const context = { lanes: 4, bandwidthBytesPerSecond: undefined, bandwidth, signal, onShare: () => {} };
    const local = new LocalItem(item.session.home, 'web', item.lab.ports.files);
    expect(await carry(context)).toMatchObject({ by: 'nothing' });
    expect((await local.load()).also).toEqual([SECOND_URL]);
    // A commit of a failover from the second store, in this home.
    const { also: _, ...state } = await local.load();
    await local.save({ ...state, url: SECOND_URL });
    await expect(carry(context)).rejects.toMatchObject({ code: 'USAGE', message: expect.stringContaining('itself') });
    expect((await local.load()).also).toBeUndefined();
  });

  it.each(['sealed', 'raw'] as const)(
    'the first store follows then, and gives up what it made since only when told so, layout %s',
    async (layout) => {
      await begin(layout);
      const [older, point] = await item.pointsAt();
      await item.takeOver(SECOND_URL, point!, 7);
      const taken = item.disks.map((disk) => Buffer.from(disk));
      await item.write(20);
      await item.apply();
      await expect(back()).rejects.toMatchObject({ code: 'SPLIT_BRAIN', facts: { newer: 1 } });
      // The new side goes on from the point. Its next log has the number of the one that the old side shipped since.
      for (const [i, disk] of taken.entries()) disk.copy(item.disks[i]!);
      await item.shipTo(SECOND_URL);
      await item.write(30);
      await expect(back()).rejects.toMatchObject({ code: 'SPLIT_BRAIN' });
      expect(await back(true)).toMatchObject({ points: 1, by: 'copy' });
      const newest = (await item.pointsAt()).at(-1);
      expect(await item.checkAt(FIRST_URL)).toEqual([older, point, newest]);
      await item.checkLiveAt(FIRST_URL);
      await item.write(40);
      expect(await back()).toMatchObject({ points: 1, by: 'logs' });
      await item.checkAt(FIRST_URL);
      await item.checkLiveAt(FIRST_URL);
    },
  );

  it('an owner that stopped is carried without a new point', async () => {
    await begin();
    const point = (await item.pointsAt()).at(-1)!;
    await item.commitAt(FIRST_URL, ({ owner }) => ({ owner: { ...owner, phase: 'synced', point } }));
    expect(await item.mirror()).toMatchObject({ by: 'owner', points: 0 });
    expect((await item.replicaAt()).record.root.owner).toMatchObject({ phase: 'synced', point });
    expect(await item.mirror()).toMatchObject({ by: 'nothing' });
  });

  it('a machine that was stopped and taken over in the second store is not let go on by a cancel', async () => {
    await begin();
    const local = new LocalItem(item.session.home, 'web', item.lab.ports.files);
    const point = (await item.pointsAt()).at(-1)!;
    await item.commitAt(FIRST_URL, ({ owner }) => ({ owner: { ...owner, phase: 'synced', point } }));
    await item.mirror();
    await item.takeOver(SECOND_URL, point, 7);
    await local.save({ ...(await local.load()), also: [SECOND_URL] });
    expect((await status(item.session, 'web'))[0]!.also).toMatchObject([{ url: SECOND_URL, code: 'SPLIT_BRAIN' }]);
    await expect(cancel(item.session, 'web')).rejects.toMatchObject({
      code: 'SPLIT_BRAIN',
      facts: { epoch: 2, own: 1 },
    });
    expect((await item.replicaAt(FIRST_URL)).record.root.owner.phase).toBe('synced');
    // Who cannot be asked keeps nobody stopped.
    const notices: string[] = [];
    const told: Session = {
      ...item.session,
      onEvent: (event) => event.type === 'notice' && notices.push(event.code),
    };
    await item.damage(SECOND_URL, 'root');
    expect(await cancel(told, 'web')).toMatchObject({ resumed: true });
    expect(notices).toContain('STORE_UNSEEN');
  });

  it('points that the first store gave up with a failover are given up with the next one that comes', async () => {
    await begin();
    const before = (await item.pointsAt()).length;
    await item.write(20);
    await item.mirror();
    const points = await item.pointsAt();
    await item.takeOver(FIRST_URL, points[before - 1]!, 9);
    expect(await item.mirror()).toMatchObject({ by: 'owner' });
    expect(await item.checkAt()).toEqual(points.slice(0, before));
  });
});

describe('keys', () => {
  it('are carried before anything that is sealed under them, and a slot that was removed is gone', async () => {
    await begin();
    await rotateKey(item.session, 'web');
    const path = `${item.lab.directory}/second.key`;
    await generateKeyFile(path, item.lab.ports);
    const id = await addKey(item.session, 'web', { type: 'key-file', path });
    await item.write(20);
    await item.mirror();
    expect((await item.replicaAt()).keyring.keyring.slots).toHaveLength(2);
    await removeKey(item.session, 'web', id);
    await item.write(30);
    await item.mirror();
    const { keyring } = (await item.replicaAt()).keyring;
    expect(keyring.slots.map((slot) => slot.id)).not.toContain(id);
    expect(keyring).toEqual((await item.replicaAt(FIRST_URL)).keyring.keyring);
    await item.checkAt();
  });

  it('nothing is sealed under one that the follower does not have yet, not even by folding that was interrupted', async () => {
    await begin();
    await item.write(20);
    item.lab.arm({ name: 'apply.after-intent', hit: 1 });
    await expect(item.mirror()).rejects.toMatchObject({ code: 'FAILPOINT' });
    await rotateKey(item.session, 'web');
    await item.write(30);
    // Cut off between the end of the folding and the keyring.
    item.lab.arm({ name: 'sync.after-anchor', hit: 2 });
    await expect(item.mirror()).rejects.toMatchObject({ code: 'FAILPOINT' });
    item.lab.arm();
    expect((await item.replicaAt()).record.root.sync).toBeUndefined();
    await item.checkAt();
    await item.mirror();
    await item.checkAt();
  });

  it('those of a side that took over and changed them meanwhile are not overwritten', async () => {
    await begin();
    await item.write(20);
    await rotateKey(item.session, 'web');
    item.lab.arm({ name: 'apply.after-intent', hit: 1 });
    await expect(item.mirror()).rejects.toMatchObject({ code: 'FAILPOINT' });
    // What is ended first takes long.
    await rotateKey(item.session, 'web');
    item.lab.arm();
    let theirs: Uint8Array | undefined;
    item.lab.onFailpoint = async (name, hit) => {
      if (name !== 'sync.after-anchor' || hit !== 2) return;
      item.lab.onFailpoint = undefined;
      const replica = await item.replicaAt();
      const keyring = addEpoch(replica.keyring, item.lab.ports.random);
      theirs = keyring.keyring.mac;
      await new Committer(replica, 'test', async () => {}, item.lab.ports).commitKeyring(keyring);
    };
    await expect(item.mirror()).rejects.toMatchObject({ code: 'REPLICA_FENCED' });
    expect((await item.replicaAt()).keyring.keyring.mac).toEqual(theirs);
  });

  it('an epoch that the follower alone has is not lost', async () => {
    await begin();
    const replica = await item.replicaAt();
    const committer = new Committer(replica, 'test', async () => {}, item.lab.ports);
    await committer.commitKeyring(addEpoch(replica.keyring, item.lab.ports.random));
    await item.write(20);
    await expect(item.mirror()).rejects.toMatchObject({ code: 'REPLICA_KEYRING' });
    await item.checkAt();
  });
});

describe('damage in the first store never reaches the second', () => {
  it.each(['sealed', 'raw'] as const)('in a slot, layout %s', async (layout) => {
    await begin(layout);
    await item.write(20);
    await item.apply();
    await prune(item.session, 'web', { drop: new Set((await item.pointsAt(FIRST_URL)).slice(0, -1)) });
    await item.damage(FIRST_URL, baseKey('d0', 0));
    const points = await item.pointsAt();
    await expect(item.mirror()).rejects.toMatchObject({ code: 'REPLICA_SLOT' });
    expect(await item.checkAt()).toEqual(points);
  });

  it('in a log', async () => {
    await begin();
    await item.write(20);
    const { store, record } = await item.replicaAt(FIRST_URL);
    const log = record.root.logs.at(-1)!;
    const bytes = Buffer.from((await store.get(logKey(log), 1 << 20))!.bytes);
    bytes[bytes.byteLength - 20]! ^= 1;
    await store.put(logKey(log), bytes);
    const points = await item.pointsAt();
    await expect(item.mirror()).rejects.toMatchObject({ code: 'REPLICA_LOG' });
    expect(await item.checkAt()).toEqual(points);
  });
});
