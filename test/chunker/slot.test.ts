import { describe, expect, it } from 'vitest';
import {
  type Compression,
  createCodec,
  createFingerprinter,
  ENTRIES_PER_PAGE,
  PAGE_BYTES,
  PageCipher,
  readEntry,
  SlotCipher,
  slotSizeBytes,
  slotTag,
  writeEntry,
} from '../../src/chunker/index.ts';
import { context, noise, prose } from './support.ts';

describe('slots', () => {
  it.each<Compression>(['none', 'lz4'])('come back with compression %s', async (compression) => {
    const cipher = new SlotCipher(context());
    const prints = await createFingerprinter('xxh128', noise(32, 9));
    for (const plain of [prose(65536, 1), noise(65536, 2), noise(512, 3), prose(512, 3)]) {
      const into = Buffer.alloc(slotSizeBytes(65536) + 7);
      const print = Buffer.alloc(16);
      prints.digest(plain, print, 0);
      const { clen, paddedBytes } = cipher.seal(plain, 5, 3, print, createCodec(compression), into, 7);
      const entry = Buffer.alloc(48);
      writeEntry(entry, { generation: 3, epoch: 1, clen, tag: slotTag(into, 7, clen), fingerprint: print });
      expect(
        cipher.open(into.subarray(7, 7 + paddedBytes), 5, readEntry(entry)!, plain.length, prints).equals(plain),
      ).toBe(true);
    }
    const page = noise(ENTRIES_PER_PAGE * 48, 1);
    const pages = new PageCipher(context());
    const out = Buffer.alloc(PAGE_BYTES);
    const ref = pages.sealPage('entries', 3, 9, 1, page, out);
    expect(pages.openPage('entries', 3, ref, out).equals(page)).toBe(true);
  });
});
