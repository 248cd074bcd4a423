/** Shipped logs in the blob emulator: one part and many, written, read, cut and lengthened. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { logKey } from '../../src/replica/layout.ts';
import { noise, prose } from '../chunker/support.ts';
import { type Azurite, startAzurite } from '../support/azurite.ts';
import { requests } from '../support/counting-store.ts';
import { LogLab } from '../support/log-lab.ts';

const MIB = 1024 * 1024;
const DISK = 16 * MIB;

let azurite: Azurite;
let lab: LogLab;
beforeAll(async () => {
  azurite = await startAzurite();
  lab = new LogLab({ diskBytes: [DISK], url: `${azurite.account}/replicas/web1` });
  await (await lab.store()).prepare();
});
afterAll(async () => {
  await lab.close();
  await azurite.stop();
});

describe.each([
  ['one part', 512, prose(64 * 1024, 1), { 'log put': 1 }, { 'log read': 1 }],
  ['three parts', MIB, noise(9 * MIB, 1), { 'log part put': 3, 'log commit': 1 }, { 'log read': 3 }],
] as const)('a log of %s', (name, byteOffset, bytes, written, read) => {
  it('takes the same requests as in a folder, and comes back whole', async () => {
    const change = await lab.changeLog([{ byteOffset, bytes }]);
    requests.clear();
    const log = (await lab.write([[change]], { id: noise(16, name.length) }))!;
    expect(Object.fromEntries(requests)).toEqual(written);
    requests.clear();
    const disk = Buffer.alloc(DISK);
    await lab.play(log, [disk]);
    expect(Object.fromEntries(requests)).toEqual(read);
    expect(disk.subarray(byteOffset, byteOffset + bytes.byteLength).equals(bytes)).toBe(true);

    const store = await lab.store();
    const object = (await store.get(logKey(log), 16 * MIB))!.bytes;
    for (const changed of [object.subarray(0, -1), Buffer.concat([object, Buffer.alloc(1)])]) {
      await store.put(logKey(log), changed);
      await expect(lab.play(log, [Buffer.alloc(DISK)])).rejects.toMatchObject({ code: 'REPLICA_LOG' });
    }
    await store.delete(logKey(log));
    await expect(lab.play(log, [Buffer.alloc(DISK)])).rejects.toMatchObject({ code: 'REPLICA_LOG' });
  });
});
