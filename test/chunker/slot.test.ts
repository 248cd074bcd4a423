import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto';
import fc from 'fast-check';
import lz4 from 'lz4-napi';
import { beforeAll, describe, expect, it } from 'vitest';
import { alignUp } from '../../src/bytes.ts';
import { type Compression, createCodec } from '../../src/chunker/codec.ts';
import { createFingerprinter, type Fingerprinter } from '../../src/chunker/fingerprint.ts';
import { slotSizeBytes } from '../../src/chunker/geometry.ts';
import { HEADER, RecordCipher } from '../../src/chunker/record.ts';
import { SlotCipher } from '../../src/chunker/slot.ts';
import { isBlockferryError } from '../../src/errors.ts';
import { context, epochs, noise, prose, sealChunk } from './support.ts';

let prints: Fingerprinter;
beforeAll(async () => {
  prints = await createFingerprinter('xxh128', noise(32, 9));
});

function ruleOf(attempt: () => unknown): unknown {
  try {
    attempt();
  } catch (error) {
    if (isBlockferryError(error, 'REPLICA_SLOT')) return error.facts['rule'];
    throw error;
  }
  return undefined;
}

/** A reader of slots written from the format page alone, with node:crypto only. */
function referenceOpen(
  slot: Buffer,
  replicaId: Uint8Array,
  diskId: Uint8Array,
  chunk: number,
  key: Uint8Array,
): Buffer {
  const clen = slot.readUInt32LE(12);
  const nonce = slot.subarray(24, 48);
  const ecb = (block: Buffer): Buffer => createCipheriv('aes-256-ecb', key, null).update(block).subarray(0, 16);
  const l = BigInt(`0x${ecb(Buffer.alloc(16)).toString('hex')}`);
  const k1 = ((l << 1n) ^ (l >> 127n ? 0x87n : 0n)) & ((1n << 128n) - 1n);
  const half = (i: number): Buffer => {
    const m = BigInt(`0x${Buffer.concat([Uint8Array.of(0, i, 0x58, 0), nonce.subarray(0, 12)]).toString('hex')}`);
    return ecb(Buffer.from((m ^ k1).toString(16).padStart(32, '0'), 'hex'));
  };
  const messageKey = Buffer.concat([half(1), half(2)]);
  const number = Buffer.alloc(8);
  number.writeBigUInt64LE(BigInt(chunk));
  const decipher = createDecipheriv('aes-256-gcm', messageKey, nonce.subarray(12), { authTagLength: 16 });
  decipher.setAAD(Buffer.concat([Buffer.from('rslot1\0\0'), replicaId, diskId, number, slot.subarray(0, 64)]));
  decipher.setAuthTag(slot.subarray(64 + clen, 80 + clen));
  const content = Buffer.concat([decipher.update(slot.subarray(64, 64 + clen)), decipher.final()]);
  if (slot[6] === 0) return content;
  const block = Buffer.from(content.subarray(0, 4 + content.readUInt32LE(0)));
  block.writeUInt32LE(slot.readUInt32LE(48), 0);
  return lz4.uncompressSync(block);
}

describe('slots', () => {
  it.each<Compression>(['none', 'lz4'])('come back byte for byte with compression %s', (compression) => {
    const cipher = new SlotCipher(context());
    const codec = createCodec(compression);
    const contents = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 2000 }).map((bytes) => Buffer.from(bytes)),
      fc.tuple(fc.integer({ min: 1, max: 70_000 }), fc.nat()).map(([length, seed]) => prose(length, seed)),
      fc.tuple(fc.integer({ min: 1, max: 70_000 }), fc.nat()).map(([length, seed]) => noise(length, seed)),
    );
    fc.assert(
      fc.property(contents, fc.maxSafeNat(), fc.maxSafeNat(), (plaintext, chunk, generation) => {
        const stored = sealChunk(cipher, prints, plaintext, chunk, Math.max(1, generation), codec);
        const opened = cipher.open(stored.slot, chunk, stored.entry, plaintext.length, prints);
        expect(opened.equals(plaintext)).toBe(true);
      }),
    );
  });

  it('are read by a reader that knows the format page and nothing else', () => {
    const setup = context();
    const cipher = new SlotCipher(setup);
    for (const plaintext of [prose(65_536, 1), noise(65_536, 2), prose(512, 3)]) {
      const { slot } = sealChunk(cipher, prints, plaintext, 2 ** 40 + 5, 7, createCodec('lz4'));
      const { data } = setup.epochs.get(1)!;
      expect(referenceOpen(slot, setup.replicaId, setup.diskId, 2 ** 40 + 5, data).equals(plaintext)).toBe(true);
    }
  });

  it('have the header of the format page, field by field', () => {
    const cipher = new SlotCipher(context({ epochs: epochs(1, 0x01020304), currentEpoch: 0x01020304 }));
    const { slot, entry } = sealChunk(cipher, prints, prose(65_536, 1), 9, 0x1f_0203_0405_0607, createCodec('lz4'));
    const hex = (start: number, end: number): string => slot.subarray(start, end).toString('hex');
    expect(slot.toString('latin1', 0, 4)).toBe('RSL1');
    expect(hex(4, 8)).toBe('01010100');
    expect(hex(8, 12)).toBe('04030201');
    expect(slot.readUInt32LE(12)).toBe(entry.clen);
    expect(hex(16, 24)).toBe('0706050403021f00');
    expect(slot.readUInt32LE(48)).toBe(65_536);
    expect(hex(52, 64)).toBe('00'.repeat(12));
    expect(slot.length).toBe(alignUp(64 + entry.clen + 16, 512));
    expect(slot.subarray(80 + entry.clen).every((byte) => byte === 0)).toBe(true);
  });

  it('tell the compressed length only to the 4 KiB bucket, and fall back to no compression where it gains nothing', () => {
    const cipher = new SlotCipher(context());
    const codec = createCodec('lz4');
    for (const length of [65_536, 65_536 * 4]) {
      const { entry, slot } = sealChunk(cipher, prints, prose(length, 4), 1, 1, codec);
      expect(entry.clen % 4096).toBe(0);
      expect(entry.clen).toBeLessThan(length);
      expect(slot[HEADER.compression]).toBe(1);
    }
    for (const plaintext of [noise(65_536, 1), prose(4096, 1), prose(512, 1)]) {
      const { entry, slot } = sealChunk(cipher, prints, plaintext, 1, 1, codec);
      expect(entry.clen).toBe(plaintext.length);
      expect(slot[HEADER.compression]).toBe(0);
    }
  });

  it('never exceed their room, and are written at any place without touching what lies around', () => {
    const cipher = new SlotCipher(context());
    const room = slotSizeBytes(65_536);
    for (const plaintext of [noise(65_536, 1), prose(65_536, 1)]) {
      const into = Buffer.alloc(room + 200, 0xee);
      const { paddedBytes } = cipher.seal(plaintext, 1, 1, noise(16, 1), createCodec('lz4'), into, 100);
      expect(paddedBytes).toBeLessThanOrEqual(room);
      expect(into.subarray(0, 100).every((byte) => byte === 0xee)).toBe(true);
      expect(into.subarray(100 + paddedBytes).every((byte) => byte === 0xee)).toBe(true);
    }
    const small = Buffer.alloc(room - 1);
    expect(() => cipher.seal(noise(65_536, 1), 1, 1, noise(16, 1), createCodec('none'), small, 0)).toThrow(RangeError);
  });

  it('of an older epoch open as long as its keys are at hand, and are damage without them', () => {
    const old = sealChunk(new SlotCipher(context()), prints, prose(1000, 1), 3, 1);
    const rotated = new SlotCipher(context({ epochs: epochs(1, 2), currentEpoch: 2 }));
    expect(rotated.open(old.slot, 3, old.entry, 1000, prints).equals(old.plaintext)).toBe(true);
    const renewed = new SlotCipher(context({ epochs: epochs(2), currentEpoch: 2 }));
    expect(ruleOf(() => renewed.open(old.slot, 3, old.entry, 1000, prints))).toBe('keys of its epoch are at hand');
  });

  it('with wrong keys or a wrong fingerprint do not open', () => {
    const cipher = new SlotCipher(context());
    const { slot, entry } = sealChunk(cipher, prints, prose(1000, 1), 3, 1);
    const foreign = new SlotCipher(context({ epochs: new Map([[1, epochs(5).get(5)!]]) }));
    expect(ruleOf(() => foreign.open(slot, 3, entry, 1000, prints))).toBe('authentication tag verifies');
    const forged = { ...entry, fingerprint: noise(16, 1) };
    expect(ruleOf(() => cipher.open(slot, 3, forged, 1000, prints))).toBe('fingerprint is that of the manifest');
  });

  it('are refused for each broken rule, by name', () => {
    const cipher = new SlotCipher(context());
    const good = sealChunk(cipher, prints, prose(65_536, 1), 3, 7, createCodec('lz4'));
    const { slot, entry } = good;
    const edited = (offset: number, value: number): unknown => {
      const bytes = Buffer.from(slot);
      bytes[offset] = value;
      return ruleOf(() => cipher.open(bytes, 3, entry, 65_536, prints));
    };
    const expecting = (change: Partial<typeof entry>, length = 65_536): unknown =>
      ruleOf(() => cipher.open(slot, 3, { ...entry, ...change }, length, prints));
    expect(edited(0, 0x50)).toBe('magic is right');
    expect(edited(HEADER.version, 2)).toBe('version is 1');
    expect(edited(HEADER.suite, 2)).toBe('cipher suite is 1');
    expect(edited(HEADER.compression, 3)).toBe('compression is known');
    expect(edited(HEADER.compression, 0)).toBe('clen fits the compression');
    expect(edited(HEADER.flags, 1)).toBe('flags are zero');
    expect(edited(HEADER.reserved + 11, 1)).toBe('reserved bytes are zero');
    expect(edited(slot.length - 1, 1)).toBe('padding is zero');
    expect(edited(HEADER.nonce, slot[HEADER.nonce]! ^ 1)).toBe('authentication tag verifies');
    expect(edited(HEADER.plaintextLength, 1)).toBe('plaintext length is right');
    expect(expecting({}, 65_024)).toBe('plaintext length is right');
    expect(expecting({ clen: 65_537 })).toBe('clen is at most that of the chunk');
    expect(expecting({ clen: 0 })).toBe('clen is at most that of the chunk');
    expect(expecting({ clen: entry.clen - 4096 })).toBe('length is exactly the padded one');
    expect(expecting({ clen: entry.clen + 1 })).toBe('clen is that of the manifest');
    expect(expecting({ generation: 6 })).toBe('generation is that of the manifest');
    expect(expecting({ epoch: 2 })).toBe('epoch is that of the manifest');
    expect(expecting({ tag: noise(16, 1) })).toBe('tag is that of the manifest');
  });

  it('whose authentic content is malformed are refused all the same', () => {
    const setup = context();
    const forger = new RecordCipher(
      { label: 'rslot1\0\0', purpose: 'data', fault: (number, rule) => new Error(`${number} ${rule}`) as never },
      setup,
    );
    const cipher = new SlotCipher(setup);
    const packed = Buffer.from(createCodec('lz4').compress(prose(65_536, 1))!);
    const padded = Buffer.alloc(alignUp(packed.length, 4096));
    packed.copy(padded);
    const rules = new Set<unknown>();
    const attempt = (content: Buffer): unknown => {
      const recordBytes = alignUp(80 + content.length, 512);
      const slot = Buffer.alloc(recordBytes);
      const fields = { number: 1, generation: 1, compression: 1, plaintextLength: 65_536, tail: Buffer.alloc(0) };
      forger.seal({ ...fields, magic: 0x314c_5352, head: content, identity: content }, slot, 0, recordBytes);
      const tag = slot.subarray(64 + content.length, 80 + content.length);
      const entry = { generation: 1, epoch: 1, clen: content.length, tag, fingerprint: noise(16, 1) };
      const rule = ruleOf(() => cipher.open(slot, 1, entry, 65_536, prints));
      rules.add(rule);
      return rule;
    };
    const withLength = (payloadBytes: number): Buffer => {
      const content = Buffer.from(padded);
      content.writeUInt32LE(payloadBytes, 0);
      return content;
    };
    const framing = 'payload ends in the last padding bucket';
    expect(attempt(withLength(padded.length - 3))).toBe(framing);
    expect(attempt(withLength(0xffff_ffff))).toBe(framing);
    expect(attempt(withLength(padded.length - 4100))).toBe(framing);
    expect(attempt(withLength(packed.length - 5))).toBe(framing);
    expect(attempt(Buffer.concat([padded, Buffer.alloc(4096)]))).toBe(framing);
    expect(attempt(Buffer.alloc(3))).toBe(framing);
    expect(attempt(Buffer.alloc(4096, 0xff))).toBe(framing);
    for (let seed = 0; seed < 2000; seed += 1) {
      const content = Buffer.from(padded);
      const change = noise(6, seed);
      content[change.readUInt16LE(0) % 300] = change[2]!;
      content[change.readUInt16LE(3) % packed.length] = change[5]!;
      attempt(content);
    }
    expect([...rules].sort()).toEqual([
      'fingerprint is that of the manifest',
      'payload decompresses to the length of the chunk',
      framing,
    ]);
  });
});

describe('the nonce', () => {
  const nonceOf = (slot: Buffer): string => slot.subarray(24, 48).toString('hex');

  it('is HMAC-SHA256 over the random bytes, the AAD without nonce, and the fingerprint', () => {
    const setup = context({ randomBytes: (length) => noise(length, 123) });
    const { slot, entry } = sealChunk(new SlotCipher(setup), prints, prose(1000, 1), 3, 1);
    const number = Buffer.from('0300000000000000', 'hex');
    const hmac = createHmac('sha256', setup.epochs.get(1)!.nonce).update(noise(32, 123)).update('rslot1\0\0');
    hmac.update(setup.replicaId).update(setup.diskId).update(number);
    hmac.update(slot.subarray(0, 24)).update(slot.subarray(48, 64)).update(entry.fingerprint);
    expect(nonceOf(slot)).toBe(hmac.digest('hex').slice(0, 48));
  });

  it('differs for each seal of the same bytes at the same place', () => {
    const cipher = new SlotCipher(context());
    const seals = Array.from({ length: 200 }, () => nonceOf(sealChunk(cipher, prints, prose(600, 1), 3, 1).slot));
    expect(new Set(seals).size).toBe(200);
  });

  it('under a stuck random source repeats only for the same bytes, place and generation', () => {
    const stuck = { randomBytes: (length: number): Uint8Array => new Uint8Array(length) };
    const cipher = new SlotCipher(context(stuck));
    const other = new SlotCipher(context({ ...stuck, diskId: noise(16, 99) }));
    const base = nonceOf(sealChunk(cipher, prints, prose(600, 1), 3, 1).slot);
    expect(nonceOf(sealChunk(cipher, prints, prose(600, 1), 3, 1).slot)).toBe(base);
    const changes = [
      sealChunk(cipher, prints, prose(600, 2), 3, 1),
      sealChunk(cipher, prints, prose(600, 1), 4, 1),
      sealChunk(cipher, prints, prose(600, 1), 3, 2),
      sealChunk(other, prints, prose(600, 1), 3, 1),
    ];
    expect(new Set([base, ...changes.map(({ slot }) => nonceOf(slot))]).size).toBe(5);
  });
});

describe('a slot cipher', () => {
  it('refuses ids of another length, a missing current epoch, generation 0 and a short random source', () => {
    expect(() => new SlotCipher(context({ replicaId: new Uint8Array(15) }))).toThrow(RangeError);
    expect(() => new SlotCipher(context({ diskId: new Uint8Array(17) }))).toThrow(RangeError);
    expect(() => new SlotCipher(context({ currentEpoch: 2 }))).toThrow(RangeError);
    const cipher = new SlotCipher(context());
    for (const generation of [0, -1, 1.5, 2 ** 53]) {
      expect(() => sealChunk(cipher, prints, prose(600, 1), 3, generation)).toThrow(RangeError);
    }
    const short = new SlotCipher(context({ randomBytes: () => new Uint8Array(31) }));
    expect(() => sealChunk(short, prints, prose(600, 1), 3, 1)).toThrow(/random/);
  });
});
