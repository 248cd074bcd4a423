/** The live base of a session that is cancelled: nobody waits for a store that does not answer. */
import { describe, expect, it } from 'vitest';
import { crc64 } from '../../src/chunker/index.ts';
import { abortedError } from '../../src/errors.ts';
import { BaseLayout, type BasePiece } from '../../src/replica/base.ts';
import type { DiskDescription } from '../../src/replica/description.ts';
import { LiveBase } from '../../src/replica/live-base.ts';
import type { SessionBlob, WriterSession } from '../../src/replica/writer-session.ts';
import type { CallOptions, WriteOptions } from '../../src/transport/index.ts';
import { noise } from '../chunker/support.ts';

const CHUNK = 65_536;
const disk = { id: 'd0', layout: 'raw', chunkBytes: CHUNK, virtualSizeBytes: 4 * CHUNK } as DiskDescription;

/** Never answers, but ends when it is told to. */
function silent(options: CallOptions | undefined): Promise<never> {
  return new Promise((_, reject) => {
    options?.signal?.addEventListener('abort', () => reject(abortedError(options.signal!)));
  });
}

describe('a live base', () => {
  it('sends the checksums that its pieces have, joined with them, and none for a part of a piece', async () => {
    const BIG = 4 * 1024 * 1024;
    const large = { ...disk, chunkBytes: BIG, virtualSizeBytes: 4 * BIG, layout: 'sealed' } as DiskDescription;
    const sent: { readonly bytes: Uint8Array; readonly crc64: Uint8Array | undefined }[] = [];
    const blob = {
      write: async (bytes: Uint8Array, _offset: number, options?: WriteOptions) => {
        sent.push({ bytes, crc64: options?.crc64 });
      },
    } as unknown as SessionBlob;
    const session = { signal: new AbortController().signal, open: async () => blob } as unknown as WriterSession;
    const buffer = noise(2 * BIG, 1).buffer.slice(0, 2 * BIG) as ArrayBuffer;
    const piece = (chunk: number, offset: number, lengthBytes: number): BasePiece => {
      return { chunk, offset, lengthBytes, crc64: crc64(new Uint8Array(buffer, offset, lengthBytes)) };
    };
    await new LiveBase('d0', new BaseLayout(disk), session).write(
      [0, 1, 2].map((i) => piece(i, i * CHUNK, CHUNK)),
      buffer,
    );
    expect(sent.map(({ bytes }) => bytes.byteLength)).toEqual([3 * CHUNK]);
    expect(sent[0]?.crc64).toEqual(crc64(sent[0]!.bytes));
    const withoutOne = [piece(0, 0, CHUNK), { ...piece(1, CHUNK, CHUNK), crc64: undefined }];
    await new LiveBase('d0', new BaseLayout(disk), session).write(withoutOne, buffer);
    expect(sent[1]?.crc64).toBeUndefined();
    // A slot of a chunk of 4 MiB takes two requests.
    await new LiveBase('d0', new BaseLayout(large), session).write([piece(0, 0, BIG + 512)], buffer);
    expect(sent.slice(2).map(({ bytes, crc64 }) => [bytes.byteLength, crc64])).toEqual([
      [BIG, undefined],
      [512, undefined],
    ]);
  });

  const calls: Record<string, (base: LiveBase) => Promise<unknown>> = {
    write: (base) => base.write([{ chunk: 1, offset: 0, lengthBytes: CHUNK }], new ArrayBuffer(CHUNK)),
    clear: (base) => base.clear(0, 2),
    read: (base) => base.read(0, 2),
    snapshot: (base) => base.snapshot(),
  };

  it.each(Object.keys(calls))('ends a %s under way when its session is cancelled', async (name) => {
    const blob = {
      write: (_bytes: Uint8Array, _offset: number, options?: CallOptions) => silent(options),
      clear: (_offset: number, _lengthBytes: number, options?: CallOptions) => silent(options),
      read: (_offset: number, _lengthBytes: number, options?: CallOptions) => silent(options),
      snapshot: (options?: CallOptions) => silent(options),
    } as unknown as SessionBlob;
    const stop = new AbortController();
    const session = { signal: stop.signal, open: async () => blob } as unknown as WriterSession;
    const call = calls[name]!(new LiveBase('d0', new BaseLayout(disk), session));
    setTimeout(() => stop.abort(), 5);
    await expect(call).rejects.toMatchObject({ code: 'ABORTED' });
  });
});
