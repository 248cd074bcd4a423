/** The proof of a planned failover: what it says, and that nobody without the key makes or changes one. */
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { protect } from '../../src/agent/index.ts';
import { checkProof, encodeProof, makeProof, type Proof, type Replica } from '../../src/replica/index.ts';
import { noise } from '../chunker/support.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

let lab: Lab;
let replica: Replica;
let proof: Proof;
beforeEach(async () => {
  lab = new Lab();
  const disks = [lab.disk('d0.img', noise(3 * CHUNK, 1))];
  await protect(lab.session, { name: 'web', disks, url: STORE_URL, chunkBytes: CHUNK, keys: [] });
  replica = await lab.replica();
  const found = { stoppedMs: 5, provenMs: 9, readBytes: [3 * CHUNK] };
  proof = makeProof(replica, replica.record.root.points.at(-1)!, found);
});
afterEach(() => lab.close());

const check = (value: unknown): Proof => checkProof(Buffer.from(JSON.stringify(value)), replica, 'proof.json');
const refused = expect.objectContaining({ code: 'REPLICA_ROOT' });

it('names point, root and manifest, and comes back as it was', () => {
  expect(proof).toMatchObject({
    ...{ item: 'web', pointId: replica.record.root.points.at(-1)!.id, stoppedMs: 5, provenMs: 9 },
    root: Buffer.from(replica.record.hash).toString('hex'),
    disks: [{ disk: 'd0', virtualSizeBytes: 3 * CHUNK, readBytes: 3 * CHUNK, differingChunks: 0 }],
  });
  expect(checkProof(encodeProof(proof), replica, 'proof.json')).toEqual(proof);
});

it('is refused when anything of it was changed, added or taken away', () => {
  for (const field of Object.keys(proof) as (keyof Proof)[]) {
    const { [field]: _, ...without } = proof;
    expect(() => check(without), field).toThrow(refused);
    expect(() => check({ ...proof, [field]: 1 }), field).toThrow(refused);
  }
  const [disk] = proof.disks;
  expect(() => check({ ...proof, more: true })).toThrow(refused);
  expect(() => check({ ...proof, disks: [{ ...disk, readBytes: 1 }] })).toThrow(refused);
  expect(() => check({ ...proof, disks: [...proof.disks, disk] })).toThrow(refused);
  const { keyring } = replica;
  const other = { keyring: { ...keyring, keys: { ...keyring.keys, root: noise(32, 2) } } };
  expect(() => checkProof(encodeProof(proof), other, 'proof.json')).toThrow(refused);
});

it('of another manifest is another one', () => {
  const { root } = replica.record;
  const baselines = root.baselines.map((baseline) => ({
    ...baseline,
    disks: baseline.disks.map((disk) => ({ ...disk, tables: disk.tables.map((t) => ({ ...t, tag: noise(16, 3) })) })),
  }));
  const changed = { ...replica, record: { ...replica.record, root: { ...root, baselines } } };
  const found = { stoppedMs: 5, provenMs: 9, readBytes: [3 * CHUNK] };
  expect(makeProof(changed, root.points.at(-1)!, found).disks[0]!.manifest).not.toBe(proof.disks[0]!.manifest);
});
