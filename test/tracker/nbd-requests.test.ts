/** Requests as they come off the wire: in any pieces, refused by the rules, and with the memory that they hold. */
import { describe, expect, it, test } from 'vitest';
import { NBD_REQUEST_BYTES_MAX } from '../../src/limits.ts';
import { ConnectionMemory, ServerMemory } from '../../src/tracker/nbd/memory.ts';
import { Request, refusalOf, type Terms } from '../../src/tracker/nbd/request.ts';
import { RequestReader } from '../../src/tracker/nbd/request-reader.ts';
import { Dice } from '../support/dice.ts';
import { CMD, FLAG, type RequestFields, requestBytes } from '../support/nbd-client.ts';
import { virtualClock } from '../support/virtual-clock.ts';

const DISK_BYTES = 1024 * 1024;
const TERMS: Terms = {
  sizeBytes: DISK_BYTES,
  alignmentBytes: 1,
  zeroIsFast: true,
  isStructured: true,
  hasContexts: true,
};

function newMemory(): ConnectionMemory {
  return new ConnectionMemory(new ServerMemory(virtualClock(), () => {}), () => {});
}

function newReader(memory = newMemory()): RequestReader {
  return new RequestReader((request) => refusalOf(request, TERMS), memory);
}

/** Each request in a line: what it is, why it is refused, and its data. */
function readAll(pieces: readonly Buffer[], memory = newMemory()): readonly string[] {
  const reader = newReader(memory);
  const lines: string[] = [];
  const requests: Request[] = [];
  for (const piece of pieces) {
    reader.push(piece);
    for (let request = reader.next(); request !== undefined; request = reader.next()) {
      requests.push(request);
      const { type, flags, cookieHigh, cookieLow, offset, lengthBytes, refusal } = request;
      lines.push(`${[type, flags, cookieHigh, cookieLow, offset, lengthBytes, refusal?.error ?? 0]}`);
    }
  }
  // Only now: nothing that was handed out has been written over.
  for (const [i, { payload, lease }] of requests.entries()) {
    if (payload !== undefined) lines[i] += ` ${payload.toString('hex')}`;
    if (lease !== undefined) memory.end(lease, true);
  }
  return lines;
}

const STREAM: readonly RequestFields[] = [
  { type: CMD.flush, cookie: 0xfedcba9876543210n },
  { type: CMD.write, cookie: 1, offset: 512, data: Buffer.from('some bytes') },
  { type: CMD.write, cookie: 2, offset: DISK_BYTES - 1, data: Buffer.from('beyond the end') },
  { type: CMD.write, cookie: 3, flags: FLAG.df, offset: 0, data: Buffer.from('with a wrong flag') },
  { type: CMD.write, cookie: 4, offset: 4, data: Buffer.alloc(0) },
  { type: CMD.write, cookie: 5, flags: FLAG.fua, offset: 9, data: Buffer.alloc(300, 0xa5) },
  { type: CMD.read, cookie: 6, offset: 4096, length: 4096 },
  { type: CMD.zeroes, cookie: 7, flags: FLAG.noHole, offset: 1, length: 2 },
  { type: 77, cookie: 8, length: 20 },
  { type: CMD.disc, cookie: 9 },
];
const LINES: readonly string[] = [
  `3,0,${0xfedcba98},${0x76543210},0,0,0`,
  `1,0,0,1,512,10,0 ${Buffer.from('some bytes').toString('hex')}`,
  `1,0,0,2,${DISK_BYTES - 1},14,28`,
  '1,4,0,3,0,17,22',
  '1,0,0,4,4,0,22',
  `1,1,0,5,9,300,0 ${'a5'.repeat(300)}`,
  '0,0,0,6,4096,4096,0',
  '6,2,0,7,1,2,0',
  '77,0,0,8,0,20,22',
  '2,0,0,9,0,0,22',
];

describe('a stream of requests', () => {
  const whole = Buffer.concat(STREAM.map(requestBytes));

  it('is read as it was written', () => {
    expect(readAll([whole])).toEqual(LINES);
  });

  it('is the same wherever it is cut', () => {
    for (let at = 0; at <= whole.byteLength; at += 1) {
      const memory = newMemory();
      expect(readAll([whole.subarray(0, at), whole.subarray(at)], memory), `cut at ${at}`).toEqual(LINES);
      expect(memory.heldBytes, `cut at ${at}`).toBe(0);
    }
  });

  it('is the same byte by byte', () => {
    expect(readAll([...whole].map((byte) => Buffer.from([byte])))).toEqual(LINES);
  });

  test.for([1, 2, 3])('of 300 random requests in random pieces is read as it was written (seed %i)', (seed) => {
    const dice = new Dice(seed);
    const fields = Array.from({ length: 300 }, (_, cookie): RequestFields => {
      const type = dice.pick([CMD.read, CMD.write, CMD.write, CMD.flush, CMD.trim, CMD.zeroes, CMD.status]);
      const lengthBytes = dice.oneIn(4) ? dice.below(200_000) : dice.below(600);
      const data = type === CMD.write ? dice.bytes(lengthBytes) : Buffer.alloc(0);
      return { type, cookie, flags: dice.below(4), offset: dice.below(DISK_BYTES), length: lengthBytes, data };
    });
    const bytes = Buffer.concat(fields.map(requestBytes));
    const pieces: Buffer[] = [];
    for (let at = 0; at < bytes.byteLength; ) {
      const end = at + dice.pick([1, 27, 28, 29, 1000, 65_536]);
      pieces.push(Buffer.from(bytes.subarray(at, end)));
      at = end;
    }
    expect(readAll(pieces)).toEqual(readAll([bytes]));
  });

  it('without its magic number ends the connection', () => {
    const bytes = Buffer.from(whole);
    bytes[30] = 0;
    expect(() => readAll([bytes])).toThrow(expect.objectContaining({ code: 'NBD_PROTOCOL' }));
  });

  it('with a write above 32 MiB ends the connection, also where it is refused anyway', () => {
    const tooLong = NBD_REQUEST_BYTES_MAX + 1;
    for (const offset of [0, DISK_BYTES]) {
      const header = requestBytes({ type: CMD.write, offset, length: tooLong });
      expect(() => readAll([header])).toThrow(/33554433 bytes/);
    }
    const header = requestBytes({ type: CMD.write, length: NBD_REQUEST_BYTES_MAX });
    expect(() => readAll([header])).not.toThrow();
  });
});

describe('the data of a write', () => {
  const write = requestBytes({ type: CMD.write, data: Buffer.alloc(1000, 7) });

  it('stays where it is when it came in one piece, and holds that piece until it was read and its last user ended', () => {
    const memory = newMemory();
    const reader = newReader(memory);
    const piece = Buffer.concat([write, write, requestBytes({ type: CMD.flush })]);
    reader.push(piece);
    const [first, second] = [reader.next()!, reader.next()!];
    expect(first.payload!.buffer).toBe(piece.buffer);
    expect(second.payload!.buffer).toBe(piece.buffer);
    expect(memory.heldBytes).toBe(piece.byteLength);
    memory.end(first.lease!, true);
    expect(memory.heldBytes).toBe(piece.byteLength);
    memory.end(second.lease!, true);
    expect(memory.heldBytes).toBe(piece.byteLength);
    expect(reader.next()!.type).toBe(CMD.flush);
    expect(reader.next()).toBeUndefined();
    expect(memory.heldBytes).toBe(0);
  });

  it('gives the buffer that it came in back when the last of those in it has ended, and not before the rest was read', () => {
    const memory = newMemory();
    const reader = newReader(memory);
    const buffer = memory.take(9000);
    memory.release(9000);
    const bytes = Buffer.concat([write, write, write.subarray(0, 100)]);
    bytes.copy(buffer);
    reader.push(buffer.subarray(0, bytes.byteLength), buffer);
    memory.end(reader.next()!.lease!, true);
    expect(memory.heldBytes).toBe(9000);
    expect(memory.take(9000)).not.toBe(buffer);
    const second = reader.next()!;
    expect(reader.next()).toBeUndefined();
    expect(second.payload!.equals(Buffer.alloc(1000, 7))).toBe(true);
    memory.end(second.lease!, true);
    expect(memory.take(9000)).toBe(buffer);
  });

  it('takes the buffer that it came in out of use where somebody may still look at it', () => {
    const memory = newMemory();
    const reader = newReader(memory);
    const buffer = memory.take(9000);
    memory.release(9000);
    const bytes = Buffer.concat([write, write]);
    bytes.copy(buffer);
    reader.push(buffer.subarray(0, bytes.byteLength), buffer);
    const [failed, good] = [reader.next()!, reader.next()!];
    expect(reader.next()).toBeUndefined();
    memory.end(failed.lease!, false);
    memory.end(good.lease!, true);
    expect(memory.heldBytes).toBe(0);
    expect(memory.take(9000)).not.toBe(buffer);
  });

  it('that came in several pieces is collected once, and holds its length from its header on', () => {
    const memory = newMemory();
    const reader = newReader(memory);
    reader.push(write.subarray(0, 28));
    expect(reader.next()).toBeUndefined();
    expect(memory.heldBytes).toBe(1000);
    expect(reader.isAmidRequest).toBe(true);
    reader.push(write.subarray(28, 500));
    expect(reader.next()).toBeUndefined();
    reader.push(write.subarray(500));
    expect(reader.next()!.payload).toEqual(Buffer.alloc(1000, 7));
    expect(reader.isAmidRequest).toBe(false);
  });

  it('is given up when its end will not come', () => {
    const memory = newMemory();
    const reader = newReader(memory);
    reader.push(write.subarray(0, 100));
    reader.next();
    reader.abandon();
    reader.abandon();
    expect(memory.heldBytes).toBe(0);
  });

  it('that is refused takes no memory', () => {
    const memory = newMemory();
    const reader = newReader(memory);
    reader.push(requestBytes({ type: CMD.write, offset: DISK_BYTES, length: NBD_REQUEST_BYTES_MAX }));
    expect(reader.next()!.refusal).toMatchObject({ error: 28 });
    expect(reader.next()).toBeUndefined();
    expect(memory.heldBytes).toBe(0);
    expect(reader.isAmidRequest).toBe(true);
  });
});

describe('the rules', () => {
  const [EINVAL, ENOSPC, EOVERFLOW, ENOTSUP] = [22, 28, 75, 95];

  function errorOf(fields: RequestFields, terms: Partial<Terms> = {}): number {
    const request = new Request(requestBytes({ offset: 0, length: 512, ...fields }), 0);
    return refusalOf(request, { ...TERMS, ...terms })?.error ?? 0;
  }

  it.each([CMD.read, CMD.write, CMD.trim, CMD.zeroes, CMD.status])('serve type %i up to the last byte', (type) => {
    expect(errorOf({ type, offset: DISK_BYTES - 512 })).toBe(0);
    expect(errorOf({ type, offset: DISK_BYTES - 1, length: 1 })).toBe(0);
    expect(errorOf({ type, flags: FLAG.fua })).toBe(0);
  });

  it.each([
    [CMD.read, EINVAL],
    [CMD.write, ENOSPC],
    [CMD.trim, EINVAL],
    [CMD.zeroes, ENOSPC],
    [CMD.status, EINVAL],
  ])('refuse type %i behind the last byte with %i', (type, error) => {
    expect(errorOf({ type, offset: DISK_BYTES - 511 })).toBe(error);
    expect(errorOf({ type, offset: DISK_BYTES })).toBe(error);
    expect(errorOf({ type, offset: 2n ** 64n - 1n, length: 1 })).toBe(error);
    expect(errorOf({ type, offset: 2n ** 63n })).toBe(error);
    expect(errorOf({ type, offset: 2n ** 53n + 1n })).toBe(error);
  });

  it.each([CMD.read, CMD.write, CMD.trim, CMD.zeroes, CMD.status])('refuse type %i without length', (type) => {
    expect(errorOf({ type, length: 0 })).toBe(EINVAL);
  });

  it.each([CMD.read, CMD.write, CMD.trim, CMD.zeroes, CMD.status])('hold type %i to blocks, if agreed on', (type) => {
    const terms = { alignmentBytes: 512 };
    expect(errorOf({ type, offset: 1 }, terms)).toBe(EINVAL);
    expect(errorOf({ type, length: 511 }, terms)).toBe(EINVAL);
    expect(errorOf({ type, offset: 1024, length: 1536 }, terms)).toBe(0);
    expect(errorOf({ type, offset: 1, length: 511 })).toBe(0);
  });

  it('know the flags of each type', () => {
    const allowed = (type: number): readonly number[] =>
      Array.from({ length: 16 }, (_, bit) => 1 << bit).filter((flags) => errorOf({ type, flags }) === 0);
    expect(allowed(CMD.read)).toEqual([FLAG.fua, FLAG.df]);
    expect(allowed(CMD.write)).toEqual([FLAG.fua]);
    expect(allowed(CMD.trim)).toEqual([FLAG.fua]);
    expect(allowed(CMD.zeroes)).toEqual([FLAG.fua, FLAG.noHole, FLAG.fastZero]);
    expect(allowed(CMD.status)).toEqual([FLAG.fua, FLAG.reqOne]);
    expect(errorOf({ type: CMD.flush, length: 0, flags: FLAG.fua })).toBe(0);
    expect(errorOf({ type: CMD.flush, length: 0, flags: FLAG.noHole })).toBe(EINVAL);
  });

  it('know no other types', () => {
    for (const type of [CMD.cache, 8, 255, 65_535]) expect(errorOf({ type })).toBe(EINVAL);
  });

  it('let a flush be about everything only', () => {
    expect(errorOf({ type: CMD.flush, length: 0 })).toBe(0);
    expect(errorOf({ type: CMD.flush, length: 1 })).toBe(EINVAL);
    expect(errorOf({ type: CMD.flush, offset: 1, length: 0 })).toBe(EINVAL);
  });

  it('let reads have 32 MiB, and no more', () => {
    const terms = { sizeBytes: 2 ** 40 };
    expect(errorOf({ type: CMD.read, length: NBD_REQUEST_BYTES_MAX }, terms)).toBe(0);
    expect(errorOf({ type: CMD.read, length: NBD_REQUEST_BYTES_MAX + 1 }, terms)).toBe(EOVERFLOW);
    const simple = { ...terms, isStructured: false };
    expect(errorOf({ type: CMD.read, length: NBD_REQUEST_BYTES_MAX + 1 }, simple)).toBe(EINVAL);
    expect(errorOf({ type: CMD.zeroes, length: 0xffff_ffff }, terms)).toBe(0);
  });

  it('know DF with structured replies only', () => {
    expect(errorOf({ type: CMD.read, flags: FLAG.df }, { isStructured: false })).toBe(EINVAL);
  });

  it('know BLOCK_STATUS with contexts only', () => {
    expect(errorOf({ type: CMD.status }, { hasContexts: false })).toBe(EINVAL);
  });

  it('promise quick zeros only where they are', () => {
    expect(errorOf({ type: CMD.zeroes, flags: FLAG.fastZero }, { zeroIsFast: false })).toBe(ENOTSUP);
    expect(errorOf({ type: CMD.zeroes }, { zeroIsFast: false })).toBe(0);
  });
});
