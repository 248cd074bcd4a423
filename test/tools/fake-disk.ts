/** A disk put together from pieces, so that a test says exactly which extents a tool meets. */
import type { RandomAccessFile } from '../../src/ports.ts';
import type { Extent, VirtualDisk } from '../../src/vhd/index.ts';
import { memoryFileSystem } from '../support/memory-files.ts';

export type PieceSpec =
  | { readonly kind: 'absent' | 'zero'; readonly lengthBytes: number }
  | { readonly kind: 'data' | 'memory'; readonly bytes: Uint8Array };

export interface FakeDisk extends VirtualDisk {
  /** What the guest sees; not for disks of many GiB. */
  content(): Buffer;
  /** Reads of the file so far. */
  reads(): { readonly offset: number; readonly lengthBytes: number }[];
  /** Reads that are under way now. */
  readsUnderWay(): number;
  /** Makes every read from now on fail. */
  failReads(error: Error): void;
}

/** A disk of one file in which the data pieces stand one behind the other. */
export async function fakeDisk(pieces: readonly PieceSpec[]): Promise<FakeDisk> {
  const fileBytes = Buffer.concat(pieces.map((piece) => (piece.kind === 'data' ? piece.bytes : new Uint8Array(0))));
  const files = memoryFileSystem();
  files.put('/disk', fileBytes);
  const inner = await files.open('/disk', 'read');
  const reads: { offset: number; lengthBytes: number }[] = [];
  let underWay = 0;
  let failure: Error | undefined;
  const file: RandomAccessFile = {
    path: '/disk',
    descriptor: undefined,
    stamp: () => inner.stamp(),
    sizeBytes: () => inner.sizeBytes(),
    async read(into, position) {
      reads.push({ offset: position, lengthBytes: into.byteLength });
      underWay += 1;
      try {
        await new Promise((resolve) => setImmediate(resolve));
        if (failure) throw failure;
        return await inner.read(into, position);
      } finally {
        underWay -= 1;
      }
    },
    write: () => Promise.reject(new Error('a source is never written')),
    truncate: () => Promise.reject(new Error('a source is never written')),
    sync: async () => {},
    close: async () => {},
  };

  const extents: Extent[] = [];
  let offset = 0;
  let fileOffset = 0;
  for (const piece of pieces) {
    const lengthBytes = 'bytes' in piece ? piece.bytes.byteLength : piece.lengthBytes;
    if (piece.kind === 'data') {
      extents.push({ kind: 'data', offset, lengthBytes, depth: 0, file, fileOffset });
      fileOffset += lengthBytes;
    } else if (piece.kind === 'memory') {
      extents.push({ kind: 'memory', offset, lengthBytes, depth: 0, bytes: piece.bytes });
    } else {
      extents.push({ kind: piece.kind, offset, lengthBytes, depth: 0 });
    }
    offset += lengthBytes;
  }
  const virtualSizeBytes = offset;

  return {
    info: {
      format: 'vhdx',
      subformat: 'dynamic',
      virtualSizeBytes,
      blockSizeBytes: 1 << 20,
      logicalSectorBytes: 512,
      physicalSectorBytes: 4096,
      chain: ['/disk'],
      log: 'clean',
      notes: [],
    },
    identity: 'fake',
    contentId: 'fake',
    files: [file],
    async *extents(from, lengthBytes) {
      if (from !== 0 || lengthBytes !== virtualSizeBytes) throw new Error('the tools ask for the whole disk');
      yield* extents;
    },
    read: () => Promise.reject(new Error('the tools read by extents')),
    close: async () => {},
    content: () =>
      Buffer.concat(pieces.map((piece) => ('bytes' in piece ? piece.bytes : new Uint8Array(piece.lengthBytes)))),
    reads: () => reads,
    readsUnderWay: () => underWay,
    failReads(error) {
      failure = error;
    },
  };
}

/** Bytes that differ everywhere, the same ones for the same seed. */
export function patterned(lengthBytes: number, seed: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(lengthBytes / 4));
  let state = seed * 2654435761 + 1;
  for (let i = 0; i < words.length; i += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    words[i] = state | 1;
  }
  return new Uint8Array(words.buffer, 0, lengthBytes);
}
