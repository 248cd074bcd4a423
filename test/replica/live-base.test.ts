/** The live base of a session that is cancelled: nobody waits for a store that does not answer. */
import { describe, expect, it } from 'vitest';
import { abortedError } from '../../src/errors.ts';
import { BaseLayout } from '../../src/replica/base.ts';
import type { DiskDescription } from '../../src/replica/description.ts';
import { LiveBase } from '../../src/replica/live-base.ts';
import type { SessionBlob, WriterSession } from '../../src/replica/writer-session.ts';
import type { CallOptions } from '../../src/transport/index.ts';

const CHUNK = 65_536;
const disk = { id: 'd0', layout: 'raw', chunkBytes: CHUNK, virtualSizeBytes: 4 * CHUNK } as DiskDescription;

/** Never answers, but ends when it is told to. */
function silent(options: CallOptions | undefined): Promise<never> {
  return new Promise((_, reject) => {
    options?.signal?.addEventListener('abort', () => reject(abortedError(options.signal!)));
  });
}

describe('a live base', () => {
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
