/** Damaged VHD files give right data, or one of our errors; never a hang, another error, or unbounded memory. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import { checkDisk } from '../../src/vhd/check-disk.ts';
import { openDisk } from '../../src/vhd/open-disk.ts';
import { vhdChecksum } from '../../src/vhd/vhd-footer.ts';
import { KIB, MIB, makeVhd, type TestPorts, testPorts } from './vhd-image.ts';

const RUNS = process.env['SLOW'] === '1' ? 2000 : 150;

/** Numbers that break arithmetic more often than random ones. */
const nastyBytes = fc.constantFrom('00', 'ff', '7f', '80', '00000000', 'ffffffff', '7fffffff', '80000000', '00000001');

const damage = fc.record({
  place: fc.oneof(fc.nat(2047), fc.nat(32 * KIB)),
  hex: fc.oneof(
    nastyBytes,
    fc.uint8Array({ minLength: 1, maxLength: 8 }).map((b) => Buffer.from(b).toString('hex')),
  ),
});

const damages = fc.record({
  edits: fc.array(damage, { minLength: 1, maxLength: 6 }),
  reseals: fc.boolean(),
  cutTo: fc.option(fc.nat(200 * KIB), { nil: undefined }),
  child: fc.boolean(),
});

async function originals(): Promise<TestPorts> {
  const ports = testPorts();
  await ports.files.makeDirectory('/d');
  const options = { virtualSizeBytes: MIB, blockSizeBytes: 64 * KIB };
  await makeVhd(ports, '/d/base.vhd', options, [{ offset: 0, lengthBytes: 512, value: 1 }]);
  const child = { ...options, subformat: 'differencing', parent: '/d/base.vhd' } as const;
  await makeVhd(ports, '/d/child.vhd', child, [{ offset: 512, lengthBytes: 512, value: 2 }]);
  return ports;
}

function reseal(bytes: Buffer): void {
  for (const [offset, length, field] of [
    [0, 512, 64],
    [512, 1024, 36],
    [bytes.length - 512, 512, 64],
  ] as const) {
    if (offset < 0 || offset + length > bytes.length) continue;
    bytes.writeUInt32BE(vhdChecksum(bytes.subarray(offset, offset + length), field), offset + field);
  }
}

test('any damage is read or refused by name', async () => {
  const ports = await originals();
  const sources = ['/d/base.vhd', '/d/child.vhd'].map((path) => ports.files.get(path)!);
  await fc.assert(
    fc.asyncProperty(damages, async ({ edits, reseals, cutTo, child }) => {
      const bytes = Buffer.from(sources[child ? 1 : 0]!);
      for (const { place, hex } of edits) bytes.write(hex, place, 'hex');
      if (reseals) reseal(bytes);
      ports.files.put('/d/damaged.vhd', bytes.subarray(0, cutTo ?? bytes.length));
      try {
        const disk = await openDisk('/d/damaged.vhd', { ports });
        let at = 0;
        for await (const extent of disk.extents(0, disk.info.virtualSizeBytes)) {
          expect(extent.offset).toBe(at);
          at += extent.lengthBytes;
        }
        expect(at).toBe(disk.info.virtualSizeBytes);
        await disk.close();
      } catch (error) {
        if (!isBlockferryError(error)) throw error;
        expect(error.area).toBe('source');
      }
      await checkDisk('/d/damaged.vhd', { ports });
    }),
    { numRuns: RUNS },
  );
});
