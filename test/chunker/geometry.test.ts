import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GIB, KIB, MIB, TIB } from '../../src/bytes.ts';
import {
  chunkCount,
  chunkLengthBytes,
  type DiskGeometry,
  ENTRIES_PER_PAGE,
  HEADER_BYTES,
  manifestBlobBytes,
  manifestPageCount,
  PAGE_BYTES,
  PAGE_PLAINTEXT_BYTES,
  pagePlace,
  REFERENCES_PER_TABLE,
  segmentCount,
  segmentSizeBytes,
  slotPlace,
  slotSizeBytes,
  slotsPerSegment,
  TAG_BYTES,
  tablePageCount,
} from '../../src/chunker/geometry.ts';
import { PAGE_BLOB_BYTES_MAX } from '../../src/limits.ts';

const CHUNK_SIZES = [64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB, 2 * MIB, 4 * MIB];
const geometries: fc.Arbitrary<DiskGeometry> = fc.record({
  virtualSizeBytes: fc.integer({ min: 0, max: (64 * TIB) / 512 }).map((sectors) => sectors * 512),
  chunkBytes: fc.constantFrom(...CHUNK_SIZES),
});

describe('geometry', () => {
  it.each([
    [64 * KIB, 66_048],
    [256 * KIB, 262_656],
    [MIB, 1_049_088],
  ])('puts slots of %d-byte chunks %d bytes apart', (chunkBytes, slotBytes) => {
    expect(slotSizeBytes(chunkBytes)).toBe(slotBytes);
    expect(slotPlace(0, chunkBytes)).toEqual({ segment: 0, offset: MIB });
    expect(slotPlace(3, chunkBytes)).toEqual({ segment: 0, offset: MIB + 3 * slotBytes });
  });

  it('fills pages with as many entries and references as fit between header and tag', () => {
    const room = PAGE_BYTES - HEADER_BYTES - TAG_BYTES;
    expect(PAGE_PLAINTEXT_BYTES).toEqual({ entries: 65_424, table: 65_440 });
    expect(ENTRIES_PER_PAGE).toBe(Math.floor(room / 48));
    expect(REFERENCES_PER_TABLE).toBe(Math.floor(room / 32));
  });

  it('describes the largest disk: 64 TiB in 64 KiB chunks', () => {
    const largest = { virtualSizeBytes: 64 * TIB, chunkBytes: 64 * KIB };
    expect(chunkCount(largest)).toBe(2 ** 30);
    expect(manifestPageCount(largest)).toBe(787_779);
    expect(tablePageCount(largest)).toBe(386);
    expect(manifestBlobBytes(largest)).toBe((787_779 + 386) * 128 * KIB);
    expect(segmentCount(largest)).toBe(17);
    expect(slotPlace(2 ** 30 - 1, 64 * KIB).segment).toBe(16);
  });

  it('gives a short last chunk its true length', () => {
    const disk = { virtualSizeBytes: GIB + 512, chunkBytes: 256 * KIB };
    expect(chunkCount(disk)).toBe(4097);
    expect(chunkLengthBytes(disk, 4095)).toBe(256 * KIB);
    expect(chunkLengthBytes(disk, 4096)).toBe(512);
  });

  it('gives a disk of no bytes one empty segment and no pages', () => {
    const nothing = { virtualSizeBytes: 0, chunkBytes: MIB };
    expect([chunkCount(nothing), manifestPageCount(nothing), tablePageCount(nothing)]).toEqual([0, 0, 0]);
    expect(manifestBlobBytes(nothing)).toBe(0);
    expect(segmentCount(nothing)).toBe(1);
    expect(segmentSizeBytes(nothing, 0)).toBe(MIB);
  });

  it('covers the disk with its chunks and the chunks with its slots, one behind the other', () => {
    fc.assert(
      fc.property(geometries, fc.double({ min: 0, max: 1, noNaN: true }), (disk, where) => {
        const chunks = chunkCount(disk);
        fc.pre(chunks > 0);
        const chunk = Math.min(chunks - 1, Math.floor(where * chunks));
        const last = chunkLengthBytes(disk, chunks - 1);
        expect((chunks - 1) * disk.chunkBytes + last).toBe(disk.virtualSizeBytes);
        const place = slotPlace(chunk, disk.chunkBytes);
        const next = slotPlace(chunk + 1, disk.chunkBytes);
        const end = place.offset + slotSizeBytes(disk.chunkBytes);
        if (next.segment === place.segment) expect(next.offset).toBe(end);
        else expect(next).toEqual({ segment: place.segment + 1, offset: MIB });
        const segmentBytes = segmentSizeBytes(disk, place.segment);
        expect(end).toBeLessThanOrEqual(segmentBytes);
        expect(segmentBytes - MIB).toBeLessThanOrEqual(4 * TIB);
        expect(segmentBytes).toBeLessThanOrEqual(PAGE_BLOB_BYTES_MAX);
        expect(place.offset % 512).toBe(0);
      }),
    );
  });

  it('adds up the slots of all segments to the chunks of the disk', () => {
    fc.assert(
      fc.property(geometries, (disk) => {
        let slots = 0;
        for (let segment = 0; segment < segmentCount(disk); segment += 1) {
          slots += (segmentSizeBytes(disk, segment) - MIB) / slotSizeBytes(disk.chunkBytes);
        }
        expect(slots).toBe(chunkCount(disk));
      }),
    );
  });

  it('puts table pages first, then manifest pages, two copies each, without gap or overlap', () => {
    const disk = { virtualSizeBytes: 3000 * ENTRIES_PER_PAGE * 64 * KIB, chunkBytes: 64 * KIB };
    const places: number[] = [];
    for (let page = 0; page < tablePageCount(disk); page += 1) {
      places.push(pagePlace(disk, 'table', page, 0), pagePlace(disk, 'table', page, 1));
    }
    for (let page = 0; page < manifestPageCount(disk); page += 1) {
      places.push(pagePlace(disk, 'entries', page, 0), pagePlace(disk, 'entries', page, 1));
    }
    expect(tablePageCount(disk)).toBe(2);
    expect(places).toEqual(places.map((_, i) => i * PAGE_BYTES));
    expect(places.length * PAGE_BYTES).toBe(manifestBlobBytes(disk));
  });

  it.each([0, 1, 512, 32 * KIB, 65_537, 96 * KIB, 8 * MIB, -65_536, Number.NaN, 1.5])(
    'refuses a chunk size of %d',
    (chunkBytes) => {
      expect(() => slotSizeBytes(chunkBytes)).toThrow(RangeError);
      expect(() => chunkCount({ virtualSizeBytes: GIB, chunkBytes })).toThrow(RangeError);
    },
  );

  it.each([-512, 100, 64 * TIB + 512, Number.NaN, 2 ** 60])('refuses a disk of %d bytes', (virtualSizeBytes) => {
    expect(() => chunkCount({ virtualSizeBytes, chunkBytes: MIB })).toThrow(RangeError);
  });

  it('refuses chunks, segments and pages that the disk does not have', () => {
    const disk = { virtualSizeBytes: GIB, chunkBytes: MIB };
    expect(() => chunkLengthBytes(disk, 1024)).toThrow(RangeError);
    expect(() => chunkLengthBytes(disk, -1)).toThrow(RangeError);
    expect(() => segmentSizeBytes(disk, 1)).toThrow(RangeError);
    expect(() => pagePlace(disk, 'entries', 1, 0)).toThrow(RangeError);
    expect(() => pagePlace(disk, 'table', 1, 0)).toThrow(RangeError);
    expect(() => slotPlace(-1, MIB)).toThrow(RangeError);
    expect(slotsPerSegment(MIB) * slotSizeBytes(MIB)).toBeLessThanOrEqual(4 * TIB);
  });
});
