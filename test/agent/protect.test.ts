/** protect, named again, interrupted, or aimed at what belongs to somebody else. */
import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { ProtectRequest, Session } from '../../src/agent/index.ts';
import { points, protect, status } from '../../src/agent/index.ts';
import { generateKeyFile } from '../../src/replica/index.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

let lab: Lab;
let disk: string;
beforeEach(() => {
  lab = new Lab();
  disk = lab.disk('web.img', Buffer.alloc(4 * CHUNK, 'content'));
});
afterEach(() => lab.close());

function request(change: Partial<ProtectRequest> = {}): ProtectRequest {
  return { name: 'web', disks: [disk], url: STORE_URL, chunkBytes: CHUNK, keys: [], ...change };
}

/** A second machine with a home of its own, at the same store. */
function elsewhere(): Session {
  return { ...lab.session, home: '/memory/elsewhere' };
}

async function keyFile(name: string) {
  const path = `${lab.directory}/${name}`;
  await generateKeyFile(path, lab.ports);
  return { type: 'key-file' as const, path };
}

describe('protect', () => {
  it('remembers nothing of a request that was wrong', async () => {
    const missing = { type: 'key-file' as const, path: `${lab.directory}/missing` };
    await expect(protect(lab.session, request({ keys: [missing] }))).rejects.toMatchObject({ code: 'KEY_MISSING' });
    await expect(protect(lab.session, request({ chunkBytes: 1000 }))).rejects.toMatchObject({ code: 'USAGE' });
    expect(await status(lab.session)).toEqual([]);
    expect((await protect(lab.session, request({ keys: [await keyFile('a')] }))).changed).toBe(true);
  });

  it('goes on with the replica it has, and refuses choices that it was not created with', async () => {
    const keys = [await keyFile('a')];
    await protect(lab.session, request({ keys }));
    for (const change of [
      { layout: 'raw' },
      { fingerprint: 'sha256' },
      { compression: 'none' },
      { chunkBytes: 2 * CHUNK },
    ] as const) {
      await expect(protect(lab.session, request(change))).rejects.toMatchObject({ code: 'USAGE' });
    }
    await expect(protect(lab.session, request({ keys: [await keyFile('b')] }))).rejects.toMatchObject({
      code: 'USAGE',
    });
    await expect(protect(lab.session, request({ url: `${STORE_URL}2` }))).rejects.toMatchObject({ code: 'USAGE' });
    expect((await protect(lab.session, request({ keys }))).changed).toBe(false);
    expect(await points(lab.session, { name: 'web' })).toHaveLength(2);
  });

  it('refuses the replica of another machine and leaves it as it is', async () => {
    await protect(lab.session, request());
    const before = await points(lab.session, { name: 'web' });
    await expect(protect(elsewhere(), request())).rejects.toMatchObject({ code: 'REPLICA_FOREIGN' });
    expect(await points(lab.session, { name: 'web' })).toEqual(before);
  });

  it('of two machines that begin at the same moment, lets exactly one in, whole', async () => {
    const results = await Promise.allSettled([protect(lab.session, request()), protect(elsewhere(), request())]);
    const refused = results.filter((result) => result.status === 'rejected');
    expect(refused).toHaveLength(1);
    expect(refused[0]).toMatchObject({ reason: { code: 'REPLICA_FOREIGN' } });
    const winner = results[0]!.status === 'fulfilled' ? lab.session : elsewhere();
    expect(await points(winner, { name: 'web' })).toHaveLength(1);
  });

  it('does not commit a point of a disk that changed while it was read', async () => {
    lab.onFailpoint = (name, hit) => {
      if (name === 'sync.after-fence' && hit === 1) writeFileSync(disk, Buffer.alloc(4 * CHUNK, 'changed'));
    };
    await expect(protect(lab.session, request())).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
    expect(await points(lab.session, { name: 'web' })).toEqual([]);
    lab.onFailpoint = undefined;
    await protect(lab.session, request());
    expect(await points(lab.session, { name: 'web' })).toHaveLength(1);
  });

  it('refuses a disk that was resized', async () => {
    await protect(lab.session, request());
    lab.disk('web.img', Buffer.alloc(5 * CHUNK, 'content'));
    await expect(protect(lab.session, request())).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
  });

  it('keeps taking a raw disk for raw after its guest wrote the marks of another format into it', async () => {
    await protect(lab.session, request());
    const marked = Buffer.alloc(4 * CHUNK, 'content');
    marked.write('vhdxfile');
    lab.disk('web.img', marked);
    expect((await protect(lab.session, request())).changed).toBe(true);
  });
});
