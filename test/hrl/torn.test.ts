/**
 * Logs that were damaged or not closed: whatever is cut, flipped or cleared, what comes out is a prefix of what was
 * written, with its data, or an error.
 */
import { describe, expect, it } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import { ChangeLog, LogWriter, verifyLog } from '../../src/hrl/index.ts';
import { HRL_SCAN_GAP_BYTES_MAX } from '../../src/limits.ts';
import type { FileSystem, RandomAccessFile } from '../../src/ports.ts';
import { Dice } from '../support/dice.ts';
import { type BuiltWrite, buildLog, sealLogBlock } from '../support/hrl-builder.ts';
import { PagedImage } from '../support/paged-image.ts';
import { entriesOf, openBytes, PATH, sectors, testPorts } from './support.ts';

/** A file system with one file, whose bytes the caller changes between openings. */
function oneFile(read: (into: Uint8Array, position: number) => number, sizeBytes: () => number): FileSystem {
  const file: Partial<RandomAccessFile> = {
    path: PATH,
    sizeBytes: async () => sizeBytes(),
    read: async (into, position) => read(into, position),
    close: async () => {},
  };
  const files: Partial<FileSystem> = { open: async () => file as RandomAccessFile };
  return files as FileSystem;
}

interface Truth {
  readonly bytes: Buffer;
  readonly writes: readonly BuiltWrite[];
  /** For each group of data and block: where it begins, and how many writes there are before it. */
  readonly groups: readonly { readonly from: number; readonly writesBefore: number }[];
}

function build(open: boolean, options: { metadataBytes?: number; unchecked?: boolean } = {}): Truth {
  const { unchecked = false, ...rest } = options;
  const write = (i: number): BuiltWrite => ({ at: (i % 5) * 1024, data: sectors(1 + (i % 2), i), unchecked });
  const blocks = [[], [write(0)], [write(1), write(2)], [], [write(3), write(4)], [write(5)], [write(6), write(7)]];
  const built = buildLog({ blocks, open, ...rest });
  let writesBefore = 0;
  const groups = built.blocks.map(({ dataAt }, i) => {
    const group = { from: dataAt, writesBefore };
    writesBefore += blocks[i]!.length;
    return group;
  });
  return { bytes: built.bytes, writes: blocks.flat(), groups };
}

/** Opens and verifies the log; the writes it shows, each held against the truth. Undefined: refused. */
async function shown(files: FileSystem, { writes }: Truth): Promise<number | undefined> {
  try {
    const log = await ChangeLog.open(PATH, { ports: { files } });
    await verifyLog(log);
    const entries = await entriesOf(log);
    for (const [i, { byteOffset, dataLength, fileOffset }] of entries.entries()) {
      const data = Buffer.alloc(dataLength);
      await log.read(data, fileOffset);
      const truth = writes[i];
      if (truth === undefined || byteOffset !== truth.at || !data.equals(truth.data))
        throw new Error(`write ${i} is wrong`);
    }
    return entries.length;
  } catch (error) {
    if (isBlockferryError(error) && error.area === 'source') return undefined;
    throw error;
  }
}

class Trial {
  readonly truth: Truth;
  readonly isOpen: boolean;
  cases = 0;
  readonly #bytes: Buffer;
  #sizeBytes: number;
  readonly #files: FileSystem;

  constructor(isOpen: boolean, options?: { metadataBytes?: number }) {
    this.isOpen = isOpen;
    this.truth = build(isOpen, options);
    this.#bytes = Buffer.from(this.truth.bytes);
    this.#sizeBytes = this.#bytes.byteLength;
    this.#files = oneFile(
      (into, position) => this.#bytes.copy(into, 0, position, this.#sizeBytes),
      () => this.#sizeBytes,
    );
  }

  /** Where the last three groups of data and block begin. */
  get tailOffset(): number {
    return this.truth.groups.at(-3)!.from;
  }

  /** Damages the byte at `offset` and looks at what the log shows. */
  async change(offset: number, byte: number): Promise<void> {
    const before = this.#bytes[offset]!;
    if (byte === before) return;
    this.#bytes[offset] = byte;
    await this.#judge(offset, false);
    this.#bytes[offset] = before;
  }

  async cut(sizeBytes: number): Promise<void> {
    this.#sizeBytes = sizeBytes;
    await this.#judge(sizeBytes, true);
    this.#sizeBytes = this.#bytes.byteLength;
  }

  async #judge(offset: number, isCut: boolean): Promise<void> {
    this.cases += 1;
    const { groups, writes } = this.truth;
    const before = groups.findLast(({ from }) => from <= offset)?.writesBefore ?? 0;
    const found = await shown(this.#files, this.truth);
    // A closed log is whole or refused; of an open one all that lies before the damage is found, and no part of a group.
    const allowed = this.isOpen
      ? [before, ...(isCut ? [] : [writes.length])]
      : [undefined, ...(isCut ? [] : [writes.length])];
    if (offset < 4096) allowed.push(undefined);
    if (!allowed.includes(found)) throw new Error(`byte ${offset}: ${found} writes, not ${allowed.join(' or ')}`);
  }
}

describe.each([
  ['closed', false],
  ['unclosed', true],
] as const)('a log that is %s shows whole groups of true writes, or is refused,', (_, isOpen) => {
  it('with every bit flipped, every byte cleared and every cut in the last three groups', async () => {
    const trial = new Trial(isOpen, { metadataBytes: 512 });
    const { bytes } = trial.truth;
    for (let offset = trial.tailOffset; offset < bytes.byteLength; offset += 1) {
      const byte = bytes[offset]!;
      for (let bit = 0; bit < 8; bit += 1) await trial.change(offset, byte ^ (1 << bit));
      await trial.change(offset, 0);
      await trial.cut(offset);
    }
    expect(trial.cases).toBeGreaterThan(35_000);
  });

  it('with the same in its header', async () => {
    const trial = new Trial(isOpen);
    for (let offset = 0; offset < 4096; offset += 1) {
      const byte = trial.truth.bytes[offset]!;
      const bits = offset < 128 ? [0, 1, 2, 3, 4, 5, 6, 7] : [offset % 8];
      for (const bit of bits) await trial.change(offset, byte ^ (1 << bit));
      await trial.change(offset, 0);
      await trial.cut(offset);
    }
    expect(trial.cases).toBeGreaterThan(9_000);
  });

  it('with a bit flipped in every byte of the last three blocks of the usual size', async () => {
    const trial = new Trial(isOpen);
    const { bytes } = trial.truth;
    for (let offset = trial.tailOffset; offset < bytes.byteLength; offset += 1) {
      await trial.change(offset, bytes[offset]! ^ (1 << (offset % 8)));
      await trial.change(offset, 0);
    }
    expect(trial.cases).toBeGreaterThan(15_000);
  });
});

describe('an unclosed log', () => {
  it('shows what it showed when it was closed', async () => {
    for (const options of [{}, { metadataBytes: 512 }, { metadataBytes: 65_536 }, { unchecked: true }]) {
      const truth = build(true, options);
      const log = await openBytes(truth.bytes);
      expect(log).toMatchObject({ isClosed: false, endOffset: truth.bytes.byteLength });
      expect(await entriesOf(log)).toEqual(await entriesOf(await openBytes(build(false, options).bytes)));
    }
  });

  it('begins behind its header where it has no block yet', async () => {
    expect(await openBytes(build(true).bytes.subarray(0, 5000))).toMatchObject({ isClosed: false, endOffset: 4096 });
  });

  it('is not continued by stale bytes behind the cut', async () => {
    const truth = build(true);
    const dice = new Dice(7);
    const stale = [
      Buffer.alloc(65_536),
      dice.bytes(65_536),
      truth.bytes,
      truth.bytes.subarray(8192),
      Buffer.alloc(65_536, 0xff),
    ];
    const last = truth.groups.at(-1)!;
    for (let at = last.from + 512; at <= truth.bytes.byteLength - 4096; at += 512) {
      for (const rest of stale) {
        const bytes = Buffer.concat([truth.bytes.subarray(0, at), rest]);
        expect(await openBytes(bytes)).toMatchObject({ endOffset: last.from });
      }
    }
  });

  it('ends before data that was torn, where its checksum was filled', async () => {
    const torn = (truth: Truth): Buffer =>
      truth.bytes.fill(0, truth.groups.at(-1)!.from, truth.groups.at(-1)!.from + 512);
    const checked = build(true);
    expect(await openBytes(torn(checked))).toMatchObject({ endOffset: checked.groups.at(-1)!.from });
    const unchecked = build(true, { unchecked: true });
    expect(await openBytes(torn(unchecked))).toMatchObject({ endOffset: unchecked.bytes.byteLength });
  });

  it('is given up where no block follows for long, however long the file is', async () => {
    const truth = build(true);
    const image = PagedImage.of(truth.bytes);
    let readBytes = 0;
    const files = oneFile(
      (into, position) => {
        readBytes += into.byteLength;
        return image.read(into, position);
      },
      () => image.sizeBytes,
    );
    image.resize(2 ** 43);
    expect(await ChangeLog.open(PATH, { ports: { files } })).toMatchObject({ endOffset: truth.bytes.byteLength });
    expect(readBytes).toBeLessThan(HRL_SCAN_GAP_BYTES_MAX * 1.1);
  });

  it('is scanned in linear time, whatever blocks it seems to hold', async () => {
    // Each sector is a block that leads back rightly and describes all data before it, but for the checksum of the data.
    const head = buildLog({ blocks: [[]], open: true, metadataBytes: 512 }).bytes;
    const count = 8192;
    const bytes = Buffer.concat([head, Buffer.alloc(count * 512)]);
    for (let i = 1; i < count; i += 1) {
      const at = head.byteLength + i * 512;
      const fake = bytes.subarray(at, at + 512);
      fake.writeBigUInt64LE(BigInt(at - 4096), 0);
      fake.writeUInt32LE(1, 8);
      fake.writeUInt32LE(i * 512, 32 + 12);
      fake.writeUInt8(1, 32 + 20);
      fake.writeUInt32LE(0xbad, 32 + 21);
      sealLogBlock(fake, 0, 64);
    }
    let readBytes = 0;
    const files = oneFile(
      (into, position) => {
        readBytes += into.byteLength;
        return bytes.copy(into, 0, position);
      },
      () => bytes.byteLength,
    );
    expect(await ChangeLog.open(PATH, { ports: { files } })).toMatchObject({ endOffset: head.byteLength });
    expect(readBytes).toBeLessThan(1.2 * bytes.byteLength);
  });

  it('stops its scan when it is told to', async () => {
    const ports = testPorts();
    ports.files.put(PATH, build(true).bytes);
    const signal = AbortSignal.abort();
    await expect(ChangeLog.open(PATH, { ports, signal })).rejects.toMatchObject({ code: 'ABORTED' });
  });
});

describe('a log as guest data', () => {
  const inner = buildLog({ blocks: [[], [{ at: 0, data: sectors(3, 1) }], [{ at: 8192, data: sectors(2, 2) }]] }).bytes;

  async function logOf(writes: readonly Buffer[], close: boolean): Promise<ChangeLog> {
    const ports = testPorts();
    const writer = await LogWriter.create(PATH, { ports });
    for (const bytes of writes) {
      await writer.append([{ byteOffset: 1 << 20, bytes }]);
      await writer.sync();
    }
    await (close ? writer.close() : writer.abandon());
    return await ChangeLog.open(PATH, { ports });
  }

  it('is data like any other, as a whole and in pieces that are synced one by one', async () => {
    for (const pieceBytes of [inner.byteLength, 8192, 4096, 1536, 512]) {
      const pieces = Array.from({ length: Math.ceil(inner.byteLength / pieceBytes) }, (_, i) =>
        inner.subarray(i * pieceBytes, (i + 1) * pieceBytes),
      );
      for (const close of [true, false]) {
        const log = await logOf(pieces, close);
        const data: Buffer[] = [];
        for (const { fileOffset, dataLength } of await entriesOf(log)) {
          const bytes = Buffer.alloc(dataLength);
          await log.read(bytes, fileOffset);
          data.push(bytes);
        }
        expect(Buffer.concat(data).equals(inner)).toBe(true);
      }
    }
  });

  it('is kept apart from the true blocks, wherever it is placed to be mistaken', async () => {
    const piece = inner.subarray(8192, 8192 + 3 * 512 + 4096);
    // Behind a block, behind other data of the same block, and twice in one write.
    const twice = Buffer.concat([piece, Buffer.alloc(4096), piece]);
    twice.writeBigUInt64LE(BigInt(4096 + 4096 + 4096 + 3 * 512), 3 * 512 + 4096 + 4096 + 3 * 512);
    sealLogBlock(twice, 3 * 512 + 4096 + 4096 + 3 * 512);
    for (const writes of [[piece], [piece, piece], [twice], [sectors(2, 1), twice, piece]]) {
      const entries = await entriesOf(await logOf(writes, false));
      expect(entries.reduce((sum, { dataLength }) => sum + dataLength, 0)).toBe(Buffer.concat(writes).byteLength);
    }
    expect(
      (await entriesOf(await logOf([piece], false))).map(({ byteOffset, dataLength }) => [byteOffset, dataLength]),
    ).toEqual([
      [1 << 20, 3 * 512],
      [(1 << 20) + 3 * 512, 4096],
    ]);
  });

  it('misleads the scan of an unclosed log of another writer, within the limit that the manual states', async () => {
    const piece = inner.subarray(8192, 8192 + 3 * 512 + 4096);
    const write = { at: 1 << 20, data: piece };
    const shift = { at: 0, data: sectors(1, 1) };
    const lengths = async (open: boolean, writes: readonly BuiltWrite[]): Promise<number[]> =>
      (await entriesOf(await openBytes(buildLog({ blocks: [[], writes], open }).bytes))).map(
        ({ dataLength }) => dataLength,
      );
    expect(await lengths(false, [write])).toEqual([piece.byteLength]);
    expect(await lengths(true, [write])).toEqual([3 * 512]);
    expect(await lengths(true, [shift, write])).toEqual([512, piece.byteLength]);
  });

  it('ends the prefix where a sector directly behind a true block looks like an empty one', async () => {
    const empty = buildLog({ blocks: [[], []] }).bytes.subarray(8192, 8192 + 512);
    const log = await logOf([sectors(4, 1), empty, sectors(4, 2)], false);
    expect((await entriesOf(log)).map(({ dataLength }) => dataLength)).toEqual([2048]);
  });
});
