/**
 * The attacks of someone who may read, change, move and replay everything in the store: none is accepted. The controls
 * take one protection away and show that the attack then succeeds, so the matrix would notice if it were gone.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { createFingerprinter, type Fingerprinter } from '../../src/chunker/fingerprint.ts';
import { HEADER, RecordCipher, type RecordKind } from '../../src/chunker/record.ts';
import { SlotCipher } from '../../src/chunker/slot.ts';
import { isBlockferryError } from '../../src/errors.ts';
import { context, noise, prose, type StoredChunk, sealChunk } from './support.ts';

const LENGTH = 1000;
const CHUNKS = 16;
const SLOT_KIND: RecordKind = {
  label: 'rslot1\0\0',
  purpose: 'data',
  fault: (number, rule) => new Error(`chunk ${number}: ${rule}`) as never,
};

let prints: Fingerprinter;
/** [disk][generation - 1][chunk] */
let stored: StoredChunk[][][];
let ciphers: SlotCipher[];

beforeAll(async () => {
  prints = await createFingerprinter('sha256', noise(32, 9));
  ciphers = [1, 2].map((disk) => new SlotCipher(context({ diskId: noise(16, disk) })));
  stored = ciphers.map((cipher, disk) =>
    [1, 2].map((generation) =>
      Array.from({ length: CHUNKS }, (_, chunk) =>
        sealChunk(cipher, prints, prose(LENGTH, disk * 1000 + generation * 100 + chunk), chunk, generation),
      ),
    ),
  );
});

/** Whether disk `disk` takes `slot` for `claimed`. */
function accepts(disk: number, slot: Buffer, claimed: StoredChunk): boolean {
  try {
    ciphers[disk]!.open(slot, claimed.chunk, claimed.entry, LENGTH, prints);
    return true;
  } catch (error) {
    if (isBlockferryError(error, 'REPLICA_SLOT')) return false;
    throw error;
  }
}

/** Every slot in every other place: other chunk, other generation, other disk. */
function* misplacements(): Generator<{ disk: number; slot: Buffer; claimed: StoredChunk; rollback: boolean }> {
  for (const [fromDisk, fromGenerations] of stored.entries()) {
    for (const [g, chunks] of fromGenerations.entries()) {
      for (const { slot, chunk } of chunks) {
        for (const [disk, generations] of stored.entries()) {
          for (const claimed of generations[1]!) {
            if (disk === fromDisk && g === 1 && claimed.chunk === chunk) continue;
            yield { disk, slot, claimed, rollback: disk === fromDisk && g === 0 && claimed.chunk === chunk };
          }
        }
      }
    }
  }
}

describe('attacks on slots', () => {
  it('accepts what was sealed', () => {
    for (const [disk, generations] of stored.entries()) {
      for (const chunks of generations) for (const one of chunks) expect(accepts(disk, one.slot, one)).toBe(true);
    }
  });

  it('accepts none of the 12,288 single-bit flips of a slot', () => {
    const one = stored[0]![1]![3]!;
    expect(one.slot.length * 8).toBe(12_288);
    let accepted = 0;
    for (let bit = 0; bit < one.slot.length * 8; bit += 1) {
      one.slot[bit >> 3]! ^= 1 << (bit & 7);
      if (accepts(0, one.slot, one)) accepted += 1;
      one.slot[bit >> 3]! ^= 1 << (bit & 7);
    }
    expect(accepted).toBe(0);
    expect(accepts(0, one.slot, one)).toBe(true);
  });

  it('accepts no relocation, rollback or splice across disks', () => {
    let tried = 0;
    let accepted = 0;
    for (const { disk, slot, claimed } of misplacements()) {
      tried += 1;
      if (accepts(disk, slot, claimed)) accepted += 1;
    }
    expect(tried).toBe(2 * 2 * CHUNKS * 2 * CHUNKS - 2 * CHUNKS);
    expect(accepted).toBe(0);
  });

  it('accepts no mix of the sectors of two generations', () => {
    let accepted = 0;
    for (let chunk = 0; chunk < CHUNKS; chunk += 1) {
      const [older, newer] = [stored[0]![0]![chunk]!, stored[0]![1]![chunk]!];
      for (let mask = 1; mask < 7; mask += 1) {
        const torn = Buffer.from(older.slot);
        for (let s = 0; s < 3; s += 1) if (mask & (1 << s)) newer.slot.copy(torn, s * 512, s * 512, (s + 1) * 512);
        if (accepts(0, torn, newer) || accepts(0, torn, older)) accepted += 1;
      }
    }
    expect(accepted).toBe(0);
  });

  it('accepts no length but the exact one, although what is cut off or added is only zeros', () => {
    const one = stored[0]![1]![5]!;
    const longer = Buffer.concat([one.slot, Buffer.alloc(1024)]);
    const accepted = [];
    for (let length = 0; length <= longer.length; length += 1) {
      if (accepts(0, longer.subarray(0, length), one)) accepted.push(length);
    }
    expect(accepted).toEqual([one.slot.length]);
  });

  it('accepts no slot of another replica', () => {
    const foreign = new SlotCipher(context({ replicaId: noise(16, 77), diskId: noise(16, 1) }));
    const own = stored[0]![1]![2]!;
    const theirs = sealChunk(foreign, prints, own.plaintext, own.chunk, 2);
    expect(accepts(0, theirs.slot, own)).toBe(false);
    expect(accepts(0, theirs.slot, { ...own, entry: theirs.entry })).toBe(false);
  });
});

describe('controls', () => {
  /** Opens a slot as a reader would that takes generation, epoch, clen and tag from the slot itself. */
  function acceptsWithoutEntry(cipher: RecordCipher, slot: Buffer, number: number): boolean {
    const clen = slot.readUInt32LE(HEADER.clen);
    if (64 + clen + 16 > slot.length) return false;
    const expected = {
      magic: 0x314c_5352,
      number,
      compressionMax: 2,
      plaintextLength: LENGTH,
      generation: Number(slot.readBigUInt64LE(HEADER.generation)),
      epoch: slot.readUInt32LE(HEADER.epoch),
      clen,
      tag: slot.subarray(64 + clen, 80 + clen),
    };
    try {
      cipher.open(slot, expected);
      return true;
    } catch {
      return false;
    }
  }

  it('without the manifest entry every rollback is accepted, and the AAD stops only what was moved', () => {
    const readers = [1, 2].map((disk) => new RecordCipher(SLOT_KIND, context({ diskId: noise(16, disk) })));
    const count = { rollbacks: 0, rollbacksAccepted: 0, moved: 0, movedAccepted: 0 };
    for (const { disk, slot, claimed, rollback } of misplacements()) {
      const accepted = acceptsWithoutEntry(readers[disk]!, slot, claimed.chunk);
      count[rollback ? 'rollbacks' : 'moved'] += 1;
      if (accepted) count[rollback ? 'rollbacksAccepted' : 'movedAccepted'] += 1;
    }
    expect(count).toEqual({ rollbacks: 32, rollbacksAccepted: 32, moved: 1984, movedAccepted: 0 });
  });

  it('without the place in the AAD every moved slot is accepted as well', () => {
    // One disk id and one number for all: the same as an AAD that leaves the place out.
    const placeless = new RecordCipher(SLOT_KIND, context());
    const slots = Array.from({ length: CHUNKS }, (_, chunk) => {
      const slot = Buffer.alloc(1536);
      const head = prose(LENGTH, chunk);
      const fields = { magic: 0x314c_5352, number: 0, generation: 1, compression: 0, plaintextLength: LENGTH };
      placeless.seal({ ...fields, head, tail: Buffer.alloc(0), identity: head }, slot, 0, slot.length);
      return slot;
    });
    let swapsAccepted = 0;
    for (let to = 0; to < CHUNKS; to += 1) {
      for (let from = 0; from < CHUNKS; from += 1) {
        if (from !== to && acceptsWithoutEntry(placeless, slots[from]!, 0)) swapsAccepted += 1;
      }
    }
    expect(swapsAccepted).toBe(240);
  });
});
