/** Frames of shipped logs: their bytes, what goes in and comes out, every rule of the format page. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Codec, type Compression, createCodec } from '../../src/chunker/codec.ts';
import {
  LOG_FRAME_BYTES_MAX,
  LOG_ZEROS_BYTES_MAX,
  LogFrameBuilder,
  LogFrameCipher,
  LogOrder,
  type LogPiece,
  logFrameBytes,
} from '../../src/chunker/log-frame.ts';
import { HEADER, RecordCipher } from '../../src/chunker/record.ts';
import { isBlockferryError } from '../../src/errors.ts';
import { context, epochs, noise, prose } from './support.ts';

const MIB = 1024 * 1024;
const DISKS = [8 * MIB, 2 ** 46] as const;
const LOG = { seq: 7, id: noise(16, 77) };
const NONE = createCodec('none');

/** A piece to ship: data, or zeros where there are no bytes. */
type Piece = LogPiece;

function build(pieces: readonly Piece[], builder: LogFrameBuilder = new LogFrameBuilder()): Buffer {
  builder.begin();
  for (const { disk, offset, lengthBytes, bytes } of pieces) {
    if (bytes === undefined) {
      builder.addZeros(disk, offset, lengthBytes);
    } else {
      builder.room(lengthBytes).set(bytes);
      builder.addData(disk, offset, lengthBytes);
    }
  }
  return builder.finish();
}

function sealed(plaintext: Uint8Array, frame = 0, codec: Codec = NONE, cipher: LogFrameCipher = make()): Buffer {
  const into = Buffer.alloc(LOG_FRAME_BYTES_MAX, 0xee);
  return into.subarray(0, cipher.seal(plaintext, frame, codec, into));
}

function make(change: Parameters<typeof context>[0] = {}, log: typeof LOG = LOG): LogFrameCipher {
  return new LogFrameCipher(context(change), log);
}

function data(disk: number, offset: number, bytes: Uint8Array): Piece {
  return { disk, offset, lengthBytes: bytes.byteLength, bytes };
}

/** The rule that is broken, or undefined. Anything but REPLICA_LOG is thrown. */
function faultOf(work: () => unknown): string | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    if (!isBlockferryError(error, 'REPLICA_LOG')) throw error;
    return error.message;
  }
}

describe('a frame, byte by byte', () => {
  it('has its records, then their data', () => {
    const plaintext = build([
      { disk: 1, offset: 2 ** 40, lengthBytes: 0x1_0000 },
      data(1, 2 ** 40 + 0x1_0000, Buffer.alloc(512, 0xab)),
    ]);
    expect(plaintext.subarray(0, 36).toString('hex')).toBe(
      '02000000' +
        '0100' +
        '01' +
        '00' +
        '00000100' +
        '0000000000010000' +
        '0100' +
        '00' +
        '00' +
        '00020000' +
        '0000010000010000',
    );
    expect(plaintext.subarray(36).equals(Buffer.alloc(512, 0xab))).toBe(true);
  });

  it('has a header with the numbers of the format page', () => {
    const frame = sealed(build([data(0, 0, noise(512, 1))]), 3);
    expect(frame.subarray(0, 4).toString()).toBe('RLF1');
    expect([...frame.subarray(4, 8)]).toEqual([1, 1, 0, 0]);
    expect(frame.readUInt32LE(8)).toBe(1);
    expect(frame.readUInt32LE(12)).toBe(4 + 16 + 512);
    expect(frame.readBigUInt64LE(16)).toBe(7n);
    expect(frame.readUInt32LE(48)).toBe(4 + 16 + 512);
    expect(frame.subarray(52, 64).equals(Buffer.alloc(12))).toBe(true);
    expect(frame.byteLength).toBe(64 + 4 + 16 + 512 + 16);
    expect(logFrameBytes(frame, 7, 3)).toBe(frame.byteLength);
  });

  it('is sealed with the ids of replica and log, its number and its header, and nothing else', () => {
    const plaintext = build([data(0, 0, noise(512, 1))]);
    const frame = sealed(plaintext, 5);
    const expected = {
      magic: frame.readUInt32LE(0),
      number: 5,
      generation: 7,
      compressionMax: 2,
      plaintextMin: 1,
      plaintextMax: 4096,
      packedMin: 5,
    };
    const fault = (): never => {
      throw new Error('refused');
    };
    const other = new RecordCipher({ label: 'rlogf1\0\0', purpose: 'data', fault }, context({ diskId: LOG.id }));
    expect(other.openSelfDescribed(frame, expected).content.equals(plaintext)).toBe(true);
    for (const label of ['rslot1\0\0', 'rpage1\0\0'] as const) {
      const wrong = new RecordCipher({ label, purpose: 'data', fault }, context({ diskId: LOG.id }));
      expect(() => wrong.openSelfDescribed(frame, expected)).toThrow('refused');
    }
  });
});

describe('putting a frame together', () => {
  it('makes one record of neighbours, data and zeros apart, disks apart', () => {
    const pieces = [
      data(0, 0, noise(512, 1)),
      data(0, 512, noise(1024, 2)),
      { disk: 0, offset: 1536, lengthBytes: 512 },
      { disk: 0, offset: 2048, lengthBytes: 4096 },
      data(0, 6144, noise(512, 3)),
      data(1, 6656, noise(512, 4)),
      data(1, 8192, noise(512, 5)),
    ];
    const found = new LogOrder(7, DISKS).pieces(build(pieces), 0);
    expect(
      found.map(({ disk, offset, lengthBytes, bytes }) => [disk, offset, lengthBytes, bytes !== undefined]),
    ).toEqual([
      [0, 0, 1536, true],
      [0, 1536, 4608, false],
      [0, 6144, 512, true],
      [1, 6656, 512, true],
      [1, 8192, 512, true],
    ]);
  });

  it('finds data that is all zeros', () => {
    const plaintext = build([
      data(0, 0, noise(512, 1)),
      data(0, 512, Buffer.alloc(4096)),
      data(0, 4608, noise(512, 2)),
    ]);
    expect(plaintext.byteLength).toBe(4 + 3 * 16 + 1024);
    expect(new LogOrder(7, DISKS).pieces(plaintext, 0)[1]).toEqual({ disk: 0, offset: 512, lengthBytes: 4096 });
  });

  it('never joins zeros beyond what a record holds', () => {
    const pieces = [
      { disk: 1, offset: 0, lengthBytes: LOG_ZEROS_BYTES_MAX },
      { disk: 1, offset: LOG_ZEROS_BYTES_MAX, lengthBytes: 512 },
    ];
    expect(new LogOrder(7, DISKS).pieces(build(pieces), 0)).toEqual(pieces);
  });

  it('refuses more data and more records than a frame takes, and takes just as many', () => {
    const builder = new LogFrameBuilder();
    builder.begin();
    for (let i = 0; i < 4096; i += 1) builder.addZeros(1, i * 1024, 512);
    expect(() => builder.addZeros(1, 4096 * 1024, 512)).toThrow(RangeError);
    expect(new LogOrder(7, DISKS).pieces(builder.finish(), 0)).toHaveLength(4096);
    builder.begin();
    builder.room(MIB).fill(1);
    builder.addData(0, 0, MIB);
    expect(() => builder.room(1)).toThrow(RangeError);
    expect(sealed(builder.finish()).byteLength).toBeLessThanOrEqual(LOG_FRAME_BYTES_MAX);
  });

  it('is no longer than said, whatever is in it', () => {
    const builder = new LogFrameBuilder();
    builder.begin();
    const bytes = noise(256, 1);
    for (let i = 0; i < 4096; i += 1) {
      builder.room(256).set(bytes);
      builder.addData(1, i * 1024, 256);
    }
    expect(sealed(builder.finish()).byteLength).toBe(LOG_FRAME_BYTES_MAX);
  });
});

describe('a log of frames', () => {
  const sectors = fc.integer({ min: 1, max: 64 });
  const step = fc.record({
    gap: fc.integer({ min: 0, max: 40 }),
    sectors,
    kind: fc.constantFrom('noise', 'prose', 'zeros', 'zero data'),
    turn: fc.constantFrom(0, 0, 0, 0, 1),
  });

  it.each(['none', 'lz4'] satisfies Compression[])('comes out as it went in, compression %s', (compression) => {
    const codec = createCodec(compression);
    const builder = new LogFrameBuilder();
    const cipher = make();
    fc.assert(
      fc.property(
        fc.array(step, { minLength: 1, maxLength: 60 }),
        fc.integer({ min: 1, max: 12 }),
        (steps, perFrame) => {
          const size = 4 * MIB;
          const model = [Buffer.alloc(size, 0x55), Buffer.alloc(size, 0x55)];
          const pieces: Piece[] = [];
          let [disk, offset] = [0, 0];
          for (const [i, { gap, sectors: n, kind, turn }] of steps.entries()) {
            if (turn === 1 && disk === 0) [disk, offset] = [1, 0];
            offset += gap * 512;
            const lengthBytes = n * 512;
            const bytes = kind === 'noise' ? noise(lengthBytes, i + 1) : prose(lengthBytes, i + 1);
            if (kind === 'zeros' || kind === 'zero data') bytes.fill(0);
            model[disk]!.set(bytes, offset);
            pieces.push(kind === 'zeros' ? { disk, offset, lengthBytes } : { disk, offset, lengthBytes, bytes });
            offset += lengthBytes;
          }
          const found = [Buffer.alloc(size, 0x55), Buffer.alloc(size, 0x55)];
          const order = new LogOrder(7, [size, size]);
          for (let at = 0, frame = 0; at < pieces.length; at += perFrame, frame += 1) {
            const bytes = sealed(build(pieces.slice(at, at + perFrame), builder), frame, codec, cipher);
            for (const piece of order.pieces(cipher.open(bytes, frame), frame)) {
              const { bytes: content = Buffer.alloc(piece.lengthBytes) } = piece;
              found[piece.disk]!.set(content, piece.offset);
            }
          }
          expect(found.every((content, i) => content.equals(model[i]!))).toBe(true);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('is stored as it is where compression would not make it shorter', () => {
    const codec = createCodec('lz4');
    expect(sealed(build([data(0, 0, noise(MIB, 1))]), 0, codec)[HEADER.compression]).toBe(0);
    const frame = sealed(build([data(0, 0, prose(MIB, 1))]), 0, codec);
    expect(frame[HEADER.compression]).toBe(1);
    expect(frame.byteLength).toBeLessThan(MIB / 2);
  });

  it('is read under the key of its epoch', () => {
    const old = sealed(build([data(0, 0, prose(4096, 1))]), 0, createCodec('lz4'));
    expect(make({ epochs: epochs(1, 2), currentEpoch: 2 }).open(old, 0).byteLength).toBe(4096 + 20);
    expect(faultOf(() => make({ epochs: epochs(2), currentEpoch: 2 }).open(old, 0))).toContain('keys of its epoch');
  });
});

describe('the rules of a plaintext', () => {
  /** Records as they stand, valid or not, then data. */
  function raw(records: readonly (readonly [number, number, number, number, bigint])[], dataBytes: number): Buffer {
    const bytes = Buffer.alloc(4 + records.length * 16 + dataBytes, 0x11);
    bytes.writeUInt32LE(records.length, 0);
    for (const [i, [disk, kind, reserved, length, offset]] of records.entries()) {
      const at = 4 + i * 16;
      bytes.writeUInt16LE(disk, at);
      bytes[at + 2] = kind;
      bytes[at + 3] = reserved;
      bytes.writeUInt32LE(length, at + 4);
      bytes.writeBigUInt64LE(offset, at + 8);
    }
    return bytes;
  }

  function rule(records: Parameters<typeof raw>[0], dataBytes: number): string | undefined {
    return faultOf(() => new LogOrder(7, DISKS).pieces(raw(records, dataBytes), 2));
  }

  it('are kept by a frame that is right', () => {
    expect(
      rule(
        [
          [0, 0, 0, 512, 0n],
          [0, 1, 0, 512, 512n],
          [1, 0, 0, 512, 0n],
        ],
        1024,
      ),
    ).toBeUndefined();
    expect(rule([[0, 1, 0, 8 * MIB, 0n]], 0)).toBeUndefined();
  });

  it.each([
    ['no record', [], 0, '1 … 4096 records, not 0'],
    ['unknown kind', [[0, 2, 0, 512, 0n]], 512, 'kind is 0 or 1'],
    ['reserved byte', [[0, 0, 1, 512, 0n]], 512, 'reserved byte'],
    ['no such disk', [[2, 0, 0, 512, 0n]], 512, 'disk 2 is one of 2'],
    ['no length', [[0, 0, 0, 0, 0n]], 0, 'whole sectors'],
    ['part of a sector', [[0, 0, 0, 513, 0n]], 513, 'whole sectors'],
    ['off a sector', [[0, 0, 0, 512, 1n]], 512, 'whole sectors'],
    ['beyond the disk', [[0, 1, 0, 1024, BigInt(8 * MIB - 512)]], 0, 'inside the disk'],
    ['far beyond', [[1, 1, 0, 512, 0xffff_ffff_ffff_fe00n]], 0, 'inside the disk'],
    [
      'overlap',
      [
        [0, 0, 0, 1024, 0n],
        [0, 1, 0, 512, 512n],
      ],
      1024,
      'do not overlap',
    ],
    [
      'the same twice',
      [
        [0, 0, 0, 512, 0n],
        [0, 0, 0, 512, 0n],
      ],
      1024,
      'do not overlap',
    ],
    [
      'backwards',
      [
        [0, 0, 0, 512, 4096n],
        [0, 0, 0, 512, 0n],
      ],
      1024,
      'ascend',
    ],
    [
      'an earlier disk',
      [
        [1, 0, 0, 512, 0n],
        [0, 0, 0, 512, 4096n],
      ],
      1024,
      'ascend',
    ],
    ['data left over', [[0, 0, 0, 512, 0n]], 1024, 'data ends with the frame'],
    ['data missing', [[0, 0, 0, 1024, 0n]], 512, '1024 bytes needed'],
    ['data of zeros', [[0, 1, 0, 512, 0n]], 512, 'data ends with the frame'],
  ] as const)('refuse %s', (_, records, dataBytes, message) => {
    expect(rule(records, dataBytes)).toContain(message);
  });

  it('hold across frames', () => {
    const order = new LogOrder(7, DISKS);
    order.pieces(raw([[0, 0, 0, 1024, 4096n]], 1024), 0);
    expect(faultOf(() => order.pieces(raw([[0, 0, 0, 512, 4608n]], 512), 1))).toContain('do not overlap');
    expect(faultOf(() => order.pieces(raw([[0, 1, 0, 512, 5120n]], 0), 1))).toBeUndefined();
  });

  it('name log, frame and record', () => {
    expect(
      rule(
        [
          [0, 0, 0, 512, 0n],
          [9, 0, 0, 512, 0n],
        ],
        1024,
      ),
    ).toBe('shipped log 7: frame 2 breaks the rule: record 1: disk 9 is one of 2');
  });

  it('bound count, records and data before anything is made of them', () => {
    const many = raw([[0, 0, 0, 512, 0n]], 512);
    for (const count of [4097, 0xffff_ffff]) {
      many.writeUInt32LE(count, 0);
      expect(faultOf(() => new LogOrder(7, DISKS).pieces(many, 0))).toContain('1 … 4096 records');
    }
    many.writeUInt32LE(4096, 0);
    expect(faultOf(() => new LogOrder(7, DISKS).pieces(many, 0))).toContain('65536 bytes needed');
    const long = raw([[1, 0, 0, MIB + 512, 0n]], MIB + 512);
    expect(faultOf(() => new LogOrder(7, DISKS).pieces(long, 0))).toContain('at most 1048576 bytes of data');
    expect(faultOf(() => new LogOrder(7, DISKS).pieces(many.subarray(0, 3), 0))).toContain('4 bytes needed');
  });

  it('let no other error out, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 0, max: 5 }), (tail, count) => {
        const bytes = Buffer.concat([Buffer.from([count, 0, 0, 0]), tail]);
        faultOf(() => new LogOrder(7, DISKS).pieces(bytes, 0));
      }),
      { numRuns: 2000 },
    );
  });
});

describe('what a header claims', () => {
  const cipher = make();
  const frame = sealed(build([data(0, 0, prose(8192, 1))]), 0, createCodec('lz4'));

  function claimed(change: (header: Buffer) => void): string | undefined {
    const bytes = Buffer.from(frame);
    change(bytes);
    return faultOf(() => cipher.open(bytes, 0));
  }

  it('is bounded before anything is allocated', () => {
    for (const clen of [1_114_117, 0xffff_ffff]) {
      const header = Buffer.from(frame.subarray(0, 64));
      header.writeUInt32LE(clen, HEADER.clen);
      expect(faultOf(() => logFrameBytes(header, 7, 0))).toContain('clen is at most 1114116');
    }
    expect(claimed((h) => h.writeUInt32LE(0xffff_ffff, HEADER.plaintextLength))).toContain('20 … 1114116 bytes');
    expect(claimed((h) => h.writeUInt32LE(19, HEADER.plaintextLength))).toContain('20 … 1114116 bytes');
  });

  it('fits together', () => {
    const [clen, length] = [frame.readUInt32LE(HEADER.clen), frame.readUInt32LE(HEADER.plaintextLength)];
    expect(claimed((h) => h.writeUInt32LE(clen, HEADER.plaintextLength))).toContain('clen fits');
    expect(claimed((h) => h.writeUInt32LE(4, HEADER.clen))).toContain('clen fits');
    expect(claimed((h) => h.writeUInt32LE(length, HEADER.clen))).toContain('clen fits');
    expect(claimed((h) => h.writeUInt32LE(clen - 1, HEADER.clen))).toContain('length is exactly');
    expect(claimed((h) => h.writeUInt8(0, HEADER.compression))).toContain('clen fits');
    expect(claimed((h) => h.writeUInt8(3, HEADER.compression))).toContain('compression is known');
    expect(claimed((h) => h.writeUInt8(2, HEADER.version))).toContain('version');
    expect(claimed((h) => h.writeUInt8(2, HEADER.suite))).toContain('suite');
    expect(claimed((h) => h.writeUInt8(1, HEADER.flags))).toContain('flags');
    expect(claimed((h) => h.writeUInt8(1, HEADER.reserved))).toContain('reserved');
    expect(claimed((h) => h.writeUInt8(0x53, HEADER.magic))).toContain('magic');
    expect(claimed((h) => h.writeUInt8(8, HEADER.generation))).toContain('generation');
    expect(claimed(() => {})).toBeUndefined();
  });

  it('is not what a writer with the key may lie about: payload and its length', () => {
    const content = Buffer.alloc(600, 0x20);
    /** A frame whose compressed content is `content`, whatever that is. */
    const forged = (plaintextLength: number): Buffer => {
      const codec = { compression: 'lz4', code: 1, compress: () => content } as const;
      return sealed(Buffer.alloc(plaintextLength), 0, codec, cipher);
    };
    content.writeUInt32LE(595, 0);
    expect(faultOf(() => cipher.open(forged(4096), 0))).toContain('payload ends with the frame');
    content.writeUInt32LE(596, 0);
    expect(faultOf(() => cipher.open(forged(4096), 0))).toContain('decompresses to its length');
    const bomb = createCodec('lz4').compress(Buffer.alloc(MIB))!;
    const codec = { compression: 'lz4', code: 1, compress: () => Buffer.from(bomb) } as const;
    const short = sealed(Buffer.alloc(8192), 0, codec, cipher);
    expect(faultOf(() => cipher.open(short, 0))).toContain('decompresses to its length');
  });
});
