/** A log that no object can hold. The limit of the service is 195 GiB; here it is three parts. */
import { afterEach, expect, it, vi } from 'vitest';
import { noise } from '../chunker/support.ts';
import { LogLab } from '../support/log-lab.ts';

vi.mock('../../src/limits.ts', async (original) => ({
  ...(await original<typeof import('../../src/limits.ts')>()),
  STAGED_PARTS_MAX: 3,
}));

const MIB = 1024 * 1024;
const lab = new LogLab({ diskBytes: [16 * MIB], compression: 'none' });
afterEach(() => lab.close());

it('is refused with the way out, and leaves nothing behind', async () => {
  const writes = [0, 4, 8].map((at) => ({ byteOffset: at * MIB, bytes: noise(4 * MIB, at + 1) }));
  await expect(lab.write([[await lab.changeLog(writes)]])).rejects.toMatchObject({
    code: 'RESYNC_REQUIRED',
    area: 'source',
    message: 'the changes do not fit into one object of 12 MiB',
  });
  expect(await lab.storeFiles.list('/store/logs')).toEqual([]);
  const fitting = [{ byteOffset: 0, bytes: noise(11 * MIB, 1) }];
  expect(await lab.write([[await lab.changeLog(fitting)]])).toMatchObject({ dataBytes: 11 * MIB });
});
