import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ENTRIES_PER_PAGE,
  ENTRY_BYTES,
  PAGE_BYTES,
  PAGE_PLAINTEXT_BYTES,
  type PageKind,
  REFERENCES_PER_TABLE,
} from '../../src/chunker/geometry.ts';
import {
  entriesOfPage,
  entryAt,
  hasFingerprint,
  isZeroEntry,
  type PageReference,
  readEntry,
  readReference,
  writeEntry,
  writeReference,
} from '../../src/chunker/manifest-entry.ts';
import { PageCipher } from '../../src/chunker/manifest-page.ts';
import { HEADER } from '../../src/chunker/record.ts';
import { isBlockferryError } from '../../src/errors.ts';
import { context, epochs, noise } from './support.ts';

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const generations = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const sixteen = fc.uint8Array({ minLength: 16, maxLength: 16 });
const KINDS: readonly PageKind[] = ['entries', 'table'];

function ruleOf(attempt: () => unknown): unknown {
  try {
    attempt();
  } catch (error) {
    if (isBlockferryError(error, 'REPLICA_MANIFEST')) return error.facts['rule'];
    throw error;
  }
  return undefined;
}

describe('manifest entries', () => {
  it('have the bytes of the format page', () => {
    const entry = Buffer.alloc(48, 0xee);
    const [tag, fingerprint] = [noise(16, 1), noise(16, 2)];
    writeEntry(entry, { generation: 0x1f_0203_0405_0607, epoch: 0x01020304, clen: 0x0a0b0c0d, tag, fingerprint });
    expect(entry.toString('hex')).toBe(
      `0706050403021f00040302010d0c0b0a${tag.toString('hex')}${fingerprint.toString('hex')}`,
    );
  });

  it('come back from any place of a page, which keeps all other bytes', () => {
    const record = fc.record({ generation: generations, epoch: u32, clen: u32, tag: sixteen, fingerprint: sixteen });
    fc.assert(
      fc.property(record, fc.integer({ min: 0, max: ENTRIES_PER_PAGE - 1 }), (entry, index) => {
        const page = Buffer.alloc(PAGE_PLAINTEXT_BYTES.entries, 0xee);
        writeEntry(entryAt(page, index), entry);
        const read = readEntry(entryAt(page, index))!;
        expect({ ...read, tag: [...read.tag], fingerprint: [...read.fingerprint] }).toEqual({
          ...entry,
          tag: [...entry.tag],
          fingerprint: [...entry.fingerprint],
        });
        expect(hasFingerprint(entryAt(page, index), entry.fingerprint)).toBe(true);
        entryAt(page, index).fill(0xee);
        expect(page.equals(Buffer.alloc(page.length, 0xee))).toBe(true);
      }),
    );
  });

  it('of zeros mean a chunk of zeros, which no fingerprint equals', () => {
    const page = Buffer.alloc(3 * ENTRY_BYTES, 0xee);
    writeEntry(entryAt(page, 1), undefined);
    expect([0, 1, 2].map((index) => isZeroEntry(entryAt(page, index)))).toEqual([false, true, false]);
    expect(readEntry(entryAt(page, 1))).toBeUndefined();
    expect(hasFingerprint(entryAt(page, 1), new Uint8Array(16))).toBe(false);
  });

  it('differ in fingerprint for one changed bit', () => {
    const entry = Buffer.alloc(48);
    const fingerprint = noise(16, 5);
    writeEntry(entry, { generation: 1, epoch: 0, clen: 512, tag: new Uint8Array(16), fingerprint });
    for (let bit = 0; bit < 128; bit += 1) {
      const other = Buffer.from(fingerprint);
      other[bit >> 3]! ^= 1 << (bit & 7);
      expect(hasFingerprint(entry, other)).toBe(false);
    }
  });

  it('with a generation that no number holds are refused', () => {
    const entry = Buffer.alloc(48, 1);
    entry.writeBigUInt64LE(2n ** 53n);
    expect(ruleOf(() => readEntry(entry))).toBe('generation is 1 … 2^53 - 1');
    entry.writeBigUInt64LE(0n);
    expect(ruleOf(() => readEntry(entry))).toBe('generation is 1 … 2^53 - 1');
    const fields = { epoch: 1, clen: 1, tag: noise(16, 1), fingerprint: noise(16, 2) };
    for (const generation of [0, 2 ** 53, 0.5]) {
      expect(() => writeEntry(entry, { ...fields, generation })).toThrow(RangeError);
    }
  });

  it('are counted per page, the last page of a disk holding the rest', () => {
    const chunks = 2 * ENTRIES_PER_PAGE + 5;
    expect([0, 1, 2, 3].map((page) => entriesOfPage(page, chunks))).toEqual([1363, 1363, 5, 0]);
  });
});

describe('page references', () => {
  it('have the bytes of the format page', () => {
    const table = Buffer.alloc(64, 0xee);
    writeReference(table, 1, { generation: 0x0102, epoch: 3, copy: 1, tag: noise(16, 1) });
    expect(table.toString('hex', 32)).toBe(`0201000000000000${'03000000'}${'01000000'}${noise(16, 1).toString('hex')}`);
    expect(table.subarray(0, 32).every((byte) => byte === 0xee)).toBe(true);
  });

  it('come back from any place, and as nothing where there is no page', () => {
    const record = fc.record({ generation: generations, epoch: u32, copy: fc.constantFrom(0, 1), tag: sixteen });
    fc.assert(
      fc.property(record, fc.integer({ min: 0, max: REFERENCES_PER_TABLE - 1 }), (reference, index) => {
        const table = Buffer.alloc(PAGE_PLAINTEXT_BYTES.table, 0xee);
        writeReference(table, index, reference as PageReference);
        const read = readReference(table, index)!;
        expect({ ...read, tag: [...read.tag] }).toEqual({ ...reference, tag: [...reference.tag] });
        writeReference(table, index, undefined);
        expect(readReference(table, index)).toBeUndefined();
      }),
    );
  });

  it('with a copy other than 0 and 1, or a generation out of range, are refused', () => {
    const table = Buffer.alloc(32, 1);
    expect(ruleOf(() => readReference(table, 0))).toBe('copy is 0 or 1');
    table.writeUInt32LE(1, 12);
    table.writeBigUInt64LE(2n ** 64n - 1n);
    expect(ruleOf(() => readReference(table, 0))).toBe('generation is 1 … 2^53 - 1');
  });
});

describe('manifest pages', () => {
  const sealed = (kind: PageKind, page = 3, generation = 9, cipher = new PageCipher(context())) => {
    const plaintext = noise(PAGE_PLAINTEXT_BYTES[kind], page * 100 + generation);
    const bytes = Buffer.alloc(PAGE_BYTES, 0xee);
    return { plaintext, bytes, reference: cipher.sealPage(kind, page, generation, 1, plaintext, bytes) };
  };

  it.each(KINDS)('of %s come back byte for byte', (kind) => {
    const { plaintext, bytes, reference } = sealed(kind);
    expect(reference).toMatchObject({ generation: 9, epoch: 1, copy: 1 });
    expect(new PageCipher(context()).openPage(kind, 3, reference, bytes).equals(plaintext)).toBe(true);
    expect(bytes.toString('latin1', 0, 4)).toBe(kind === 'entries' ? 'RMP1' : 'RTP1');
    expect(bytes.readUInt32LE(HEADER.clen)).toBe(plaintext.length);
    expect(bytes.readUInt32LE(HEADER.plaintextLength)).toBe(plaintext.length);
    expect(bytes[HEADER.compression]).toBe(0);
    expect(bytes.subarray(80 + plaintext.length).every((byte) => byte === 0)).toBe(true);
  });

  it('open only under their own kind, number, generation, epoch, tag, disk and replica', () => {
    const { bytes, reference } = sealed('entries');
    const cipher = new PageCipher(context({ epochs: epochs(1, 2) }));
    const open = (kind: PageKind, page: number, change: Partial<PageReference> = {}, by = cipher): unknown =>
      ruleOf(() => by.openPage(kind, page, { ...reference, ...change }, bytes));
    expect(open('entries', 3)).toBeUndefined();
    expect(open('table', 3)).toBe('magic is right');
    expect(open('entries', 4)).toBe('authentication tag verifies');
    expect(open('entries', 3, { generation: 8 })).toBe('generation is that of the manifest');
    expect(open('entries', 3, { epoch: 2 })).toBe('epoch is that of the manifest');
    expect(open('entries', 3, { tag: noise(16, 1) })).toBe('tag is that of the manifest');
    const verifies = 'authentication tag verifies';
    expect(open('entries', 3, {}, new PageCipher(context({ diskId: noise(16, 9) })))).toBe(verifies);
    expect(open('entries', 3, {}, new PageCipher(context({ replicaId: noise(16, 9) })))).toBe(verifies);
  });

  it('of an earlier generation or from another place are refused by the reference', () => {
    const cipher = new PageCipher(context());
    const pages = [sealed('entries', 3, 8, cipher), sealed('entries', 3, 9, cipher), sealed('entries', 4, 9, cipher)];
    for (const [at, { reference }] of pages.entries()) {
      for (const [from, { bytes }] of pages.entries()) {
        const rule = ruleOf(() => cipher.openPage('entries', at === 2 ? 4 : 3, reference, bytes));
        expect(rule === undefined).toBe(at === from);
      }
    }
  });

  it('torn between two versions at any sector are refused under both references', () => {
    const cipher = new PageCipher(context());
    const [older, newer] = [sealed('table', 1, 8, cipher), sealed('table', 1, 9, cipher)];
    for (let cut = 512; cut < PAGE_BYTES; cut += 512) {
      const torn = Buffer.concat([newer.bytes.subarray(0, cut), older.bytes.subarray(cut)]);
      expect(ruleOf(() => cipher.openPage('table', 1, newer.reference, torn))).toBeDefined();
      expect(ruleOf(() => cipher.openPage('table', 1, older.reference, torn))).toBeDefined();
    }
  });

  it('of another length, or with a changed bit, are refused', () => {
    const cipher = new PageCipher(context());
    const { bytes, reference } = sealed('entries', 3, 9, cipher);
    for (const length of [0, 512, PAGE_BYTES - 512, PAGE_BYTES - 1]) {
      expect(ruleOf(() => cipher.openPage('entries', 3, reference, bytes.subarray(0, length)))).toMatch(/65536 bytes/);
    }
    const tail = bytes.length * 8 - 400;
    for (let bit = 0; bit < bytes.length * 8; bit += bit < 512 || bit >= tail ? 1 : 251) {
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      expect(ruleOf(() => cipher.openPage('entries', 3, reference, bytes))).toBeDefined();
      bytes[bit >> 3]! ^= 1 << (bit & 7);
    }
  });

  it('hedge their nonce with the page: under a stuck random source two contents never share one', () => {
    const cipher = new PageCipher(context({ randomBytes: (length) => new Uint8Array(length) }));
    const nonceOf = (plaintext: Buffer): string => {
      const bytes = Buffer.alloc(PAGE_BYTES);
      cipher.sealPage('entries', 1, 1, 0, plaintext, bytes);
      return bytes.toString('hex', 24, 48);
    };
    const plaintext = noise(PAGE_PLAINTEXT_BYTES.entries, 1);
    const first = nonceOf(plaintext);
    plaintext[65_000]! ^= 1;
    expect(nonceOf(plaintext)).not.toBe(first);
  });

  it('are sealed only from and into the right lengths', () => {
    const cipher = new PageCipher(context());
    const plaintext = Buffer.alloc(PAGE_PLAINTEXT_BYTES.entries);
    expect(() => cipher.sealPage('table', 0, 1, 0, plaintext, Buffer.alloc(PAGE_BYTES))).toThrow(RangeError);
    expect(() => cipher.sealPage('entries', 0, 1, 0, plaintext, Buffer.alloc(PAGE_BYTES + 1))).toThrow(RangeError);
  });
});
