/**
 * The attacks of someone who may read, change, move and replay every frame in the store: none is accepted. The controls take
 * one protection away and show that the attack then succeeds.
 */
import { describe, expect, it } from 'vitest';
import { createCodec } from '../../src/chunker/codec.ts';
import { LOG_FRAME_BYTES_MAX, LogFrameBuilder, LogFrameCipher, LogOrder } from '../../src/chunker/log-frame.ts';
import { RecordCipher, type SealingContext } from '../../src/chunker/record.ts';
import { isBlockferryError } from '../../src/errors.ts';
import { context, noise, prose } from './support.ts';

const FRAMES = 4;
const CODEC = createCodec('lz4');
const DISKS = [64 * 1024 * 1024];

interface Log {
  readonly seq: number;
  readonly id: Buffer;
  readonly replicaId: Buffer;
}

const LOG: Log = { seq: 5, id: noise(16, 1), replicaId: noise(16, 100) };
const OTHERS: readonly (readonly [string, Log])[] = [
  ['another id', { ...LOG, id: noise(16, 2) }],
  ['another seq', { ...LOG, seq: 6 }],
  ['another replica', { ...LOG, replicaId: noise(16, 101) }],
];

function cipherOf({ seq, id, replicaId }: Log, change: Partial<SealingContext> = {}): LogFrameCipher {
  return new LogFrameCipher(context({ replicaId, ...change }), { seq, id });
}

function frameOf(cipher: LogFrameCipher, frame: number, salt = 0): Buffer {
  const builder = new LogFrameBuilder();
  builder.begin();
  builder.room(512).set(prose(512, frame + salt));
  builder.addData(0, frame * 512, 512);
  const into = Buffer.alloc(LOG_FRAME_BYTES_MAX);
  return into.subarray(0, cipher.seal(builder.finish(), frame, CODEC, into));
}

function accepts(open: () => unknown): boolean {
  try {
    open();
    return true;
  } catch (error) {
    if (isBlockferryError(error, 'REPLICA_LOG')) return false;
    throw error;
  }
}

describe('attacks on frames', () => {
  const cipher = cipherOf(LOG);
  const frames = Array.from({ length: FRAMES }, (_, frame) => frameOf(cipher, frame));

  it('accept what was sealed, where it was sealed', () => {
    for (const [i, frame] of frames.entries()) expect(accepts(() => cipher.open(frame, i))).toBe(true);
  });

  it('accept none of the single-bit flips of a frame', () => {
    const frame = Buffer.from(frames[1]!);
    let accepted = 0;
    for (let bit = 0; bit < frame.byteLength * 8; bit += 1) {
      frame[bit >> 3]! ^= 1 << (bit & 7);
      if (accepts(() => cipher.open(frame, 1))) accepted += 1;
      frame[bit >> 3]! ^= 1 << (bit & 7);
    }
    expect(frame.byteLength).toBeGreaterThan(400);
    expect(accepted).toBe(0);
  });

  it('accept no frame that was cut, and none that grew', () => {
    const frame = frames[1]!;
    for (let length = 0; length < frame.byteLength; length += 1) {
      expect(accepts(() => cipher.open(frame.subarray(0, length), 1))).toBe(false);
    }
    for (const extra of [1, 16, 512]) {
      expect(accepts(() => cipher.open(Buffer.concat([frame, Buffer.alloc(extra)]), 1))).toBe(false);
    }
  });

  it('accept no frame in the place of another', () => {
    for (let from = 0; from < FRAMES; from += 1) {
      for (let to = 0; to < FRAMES; to += 1) {
        expect(accepts(() => cipher.open(frames[from]!, to))).toBe(from === to);
      }
    }
  });

  it.each(OTHERS)('accept no frame of a log with %s', (_, other) => {
    const foreign = cipherOf(other);
    for (let i = 0; i < FRAMES; i += 1) {
      expect(accepts(() => foreign.open(frames[i]!, i))).toBe(false);
      expect(accepts(() => cipher.open(frameOf(foreign, i), i))).toBe(false);
    }
  });

  it('accept none whose header was exchanged with another of its length', () => {
    const twin = frameOf(cipher, 1);
    expect(twin.byteLength).toBe(frames[1]!.byteLength);
    const spliced = Buffer.concat([twin.subarray(0, 64), frames[1]!.subarray(64)]);
    expect(accepts(() => cipher.open(spliced, 1))).toBe(false);
  });
});

describe('without its protection', () => {
  /** The record layer with expectations of the attacker's choosing. */
  function open(frame: Buffer, number: number, generation: number, id: Buffer = LOG.id): boolean {
    const fault = (): never => {
      throw new Error('refused');
    };
    const record = new RecordCipher(
      { label: 'rlogf1\0\0', purpose: 'data', fault },
      context({ replicaId: LOG.replicaId, diskId: id }),
    );
    try {
      record.openSelfDescribed(frame, {
        magic: frame.readUInt32LE(0),
        number,
        generation,
        compressionMax: 2,
        plaintextMin: 1,
        plaintextMax: 2 ** 20,
        packedMin: 5,
      });
      return true;
    } catch {
      return false;
    }
  }

  it('of the number, a frame passes anywhere', () => {
    const frame = frameOf(cipherOf(LOG), 2);
    expect(open(frame, 2, LOG.seq)).toBe(true);
    expect(open(frame, 1, LOG.seq)).toBe(false);
  });

  it('of the id, another try with the same seq passes', () => {
    const [, other] = OTHERS[0]!;
    const frame = frameOf(cipherOf(other), 0);
    expect(open(frame, 0, LOG.seq)).toBe(false);
    expect(open(frame, 0, LOG.seq, other.id)).toBe(true);
  });

  it('of the seq, a frame of another seq under the same id passes', () => {
    const [, other] = OTHERS[1]!;
    const frame = frameOf(cipherOf(other), 0);
    expect(open(frame, 0, LOG.seq)).toBe(false);
    expect(open(frame, 0, other.seq)).toBe(true);
  });

  it('of the order over frames, a repeated range passes', () => {
    const cipher = cipherOf(LOG);
    const plaintext = cipher.open(frameOf(cipher, 1), 1);
    const order = new LogOrder(LOG.seq, DISKS);
    order.pieces(plaintext, 1);
    expect(accepts(() => order.pieces(plaintext, 2))).toBe(false);
    expect(accepts(() => new LogOrder(LOG.seq, DISKS).pieces(plaintext, 2))).toBe(true);
  });

  it('of the random port, equal frames get equal nonces, and others do not', () => {
    const broken = { randomBytes: (lengthBytes: number) => Buffer.alloc(lengthBytes) };
    const nonce = (frame: Buffer): string => frame.subarray(24, 48).toString('hex');
    const of = (log: Log, frame: number, salt = 0): string => nonce(frameOf(cipherOf(log, broken), frame, salt));
    expect(of(LOG, 0)).toBe(of(LOG, 0));
    const nonces = [of(LOG, 0), of(LOG, 1), of(LOG, 0, 9), ...OTHERS.map(([, log]) => of(log, 0))];
    expect(new Set(nonces).size).toBe(nonces.length);
  });
});
