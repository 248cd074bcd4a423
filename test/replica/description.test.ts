import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeDescription,
  descriptionHash,
  encodeDescription,
  isSafeFileName,
  type ReplicaDescription,
} from '../../src/replica/description.ts';
import { noise } from '../chunker/support.ts';

const DESCRIPTION: ReplicaDescription = {
  replicaId: noise(16, 1),
  item: 'web',
  createdMs: 1_700_000_000_000,
  fingerprint: 'xxh128',
  compression: 'lz4',
  disks: [0, 1].map((i) => ({
    id: `d${i}`,
    guid: noise(16, 2 + i),
    virtualSizeBytes: 1_048_576,
    logicalSectorBytes: 512,
    physicalSectorBytes: 4096,
    chunkBytes: 65_536,
    layout: i === 0 ? 'sealed' : 'raw',
    name: `disk ${i}.vhdx`,
  })),
};

type Fields = Record<string, unknown>;

/** The description with fields of the document, or of its second disk, replaced. */
function changed(change: Fields, disk: Fields = {}): Uint8Array {
  const json = JSON.parse(Buffer.from(encodeDescription(DESCRIPTION)).toString()) as Fields & { disks: Fields[] };
  json.disks[1] = { ...json.disks[1], ...disk };
  return Buffer.from(JSON.stringify({ ...json, ...change }));
}

describe('replica.json', () => {
  it('reads back as what was written, in one spelling', () => {
    const bytes = encodeDescription(DESCRIPTION);
    expect(decodeDescription(bytes, 'replica.json')).toEqual(DESCRIPTION);
    expect(encodeDescription(decodeDescription(bytes, 'replica.json'))).toEqual(bytes);
    expect(Buffer.from(bytes).toString()).toMatch(/^\{"compression":"lz4",.*"format":"blockferry-replica".*\}\n$/);
  });

  it('has another hash with any other byte', () => {
    const bytes = encodeDescription(DESCRIPTION);
    const hashes = new Set([Buffer.from(descriptionHash(bytes)).toString('hex')]);
    for (let i = 0; i < bytes.byteLength; i += 1) {
      const other = Uint8Array.from(bytes);
      other[i]! ^= 1;
      hashes.add(Buffer.from(descriptionHash(other)).toString('hex'));
    }
    expect(hashes.size).toBe(bytes.byteLength + 1);
  });

  it('of a later version says so', () => {
    expect(() => decodeDescription(changed({ version: 2 }), 'r')).toThrow(/format version 2, this program reads 1/);
  });

  const DOCUMENT: readonly Fields[] = [
    { format: 'other' },
    { replicaId: '00' },
    { item: 'x'.repeat(129) },
    { createdMs: -1 },
    { fingerprint: 'md5' },
    { compression: 'brotli' },
    { disks: {} },
    { disks: new Array(65).fill({}) },
  ];
  it.each(DOCUMENT)('is refused with %j', (change) => {
    expect(() => decodeDescription(changed(change), 'r')).toThrow(
      expect.objectContaining({ code: 'REPLICA_DESCRIPTION' }),
    );
  });

  const DISK: readonly Fields[] = [
    { id: 'd0' },
    { id: '../d1' },
    { guid: 'zz' },
    { virtualSizeBytes: 0 },
    { virtualSizeBytes: 1_048_577 },
    { virtualSizeBytes: 2 ** 47 },
    { chunkBytes: 65_537 },
    { chunkBytes: 32_768 },
    { chunkBytes: 8_388_608 },
    { logicalSectorBytes: 1024 },
    { physicalSectorBytes: 0 },
    { layout: 'other' },
    { name: '../../etc/passwd' },
    { name: '' },
  ];
  it.each(DISK)('is refused with a disk of %j', (disk) => {
    expect(() => decodeDescription(changed({}, disk), 'r')).toThrow(
      expect.objectContaining({ code: 'REPLICA_DESCRIPTION' }),
    );
  });

  it('never throws anything but its own error', () => {
    const bytes = encodeDescription(DESCRIPTION);
    fc.assert(
      fc.property(fc.nat(bytes.byteLength - 1), fc.integer({ min: 0, max: 255 }), (at, value) => {
        const other = Uint8Array.from(bytes);
        other[at] = value;
        try {
          decodeDescription(other, 'r');
        } catch (error) {
          expect(error).toMatchObject({ code: 'REPLICA_DESCRIPTION' });
        }
      }),
      { numRuns: 2000, seed: 3 },
    );
  });
});

describe('the name of a restored file', () => {
  it.each(['disk.vhdx', 'Disk 1', 'a..b', 'ümlaut', '-x'])('may be %j', (name) => {
    expect(isSafeFileName(name)).toBe(true);
  });
  it.each([
    '',
    '.',
    '..',
    '.hidden',
    'a/b',
    'a\\b',
    'c:',
    'a*',
    'a?',
    '"',
    '<',
    '>',
    '|',
    'a\0',
    'a\n',
    'a.',
    'a ',
    'x'.repeat(256),
  ])('may not be %j', (name) => {
    expect(isSafeFileName(name)).toBe(false);
  });
});
