/** Logs merged: every chunk comes once, in order, with the newest bytes of each place. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chunkLengthBytes, type LogPiece } from '../../src/chunker/index.ts';
import { LogMerge, type LogStep } from '../../src/replica/log-merge.ts';

const CHUNK = 65_536;
/** The last chunk of each disk is short. */
const DISKS = [
  { virtualSizeBytes: 4 * CHUNK + 1536, chunkBytes: CHUNK },
  { virtualSizeBytes: 2 * CHUNK, chunkBytes: CHUNK },
];

interface Piece {
  readonly disk: number;
  readonly offset: number;
  readonly lengthBytes: number;
  /** Undefined: zeros. */
  readonly fill?: number | undefined;
}

/** A log whose pieces share one buffer: a piece is gone when the next one is asked for. */
async function* log(pieces: readonly Piece[], onEnd: () => void = () => {}): AsyncGenerator<LogPiece> {
  const shared = Buffer.alloc(Math.max(0, ...pieces.map(({ lengthBytes }) => lengthBytes)));
  try {
    for (const { fill, ...place } of pieces) {
      await Promise.resolve();
      shared.fill(fill ?? 0xee);
      yield fill === undefined ? place : { ...place, bytes: shared.subarray(0, place.lengthBytes) };
    }
  } finally {
    onEnd();
  }
}

/** Steps as text, and the disks after all of them; each chunk is composed over what `disks` has. */
async function play(logs: readonly (readonly Piece[])[], disks: readonly Buffer[]): Promise<readonly string[]> {
  const merge = new LogMerge(
    logs.map((pieces) => log(pieces)),
    DISKS,
  );
  const steps: string[] = [];
  for (let step = await merge.next(); step; step = await merge.next()) steps.push(await playStep(merge, step, disks));
  await merge.close();
  return steps;
}

async function playStep(merge: LogMerge, step: LogStep, disks: readonly Buffer[]): Promise<string> {
  const { disk } = step;
  if (step.kind === 'zeros') {
    disks[disk]!.fill(0, step.from * CHUNK, Math.min(step.to * CHUNK, disks[disk]!.byteLength));
    await merge.skip(disk, step.to);
    return `${disk}: ${step.from}-${step.to} zeros`;
  }
  const start = step.chunk * CHUNK;
  const into = Buffer.alloc(chunkLengthBytes(DISKS[disk]!, step.chunk), 0xdd);
  const cover = await merge.compose(disk, step.chunk, into);
  for (const { from, to } of cover) into.copy(disks[disk]!, start + from, from, to);
  return `${disk}: ${step.chunk} ${cover.map(({ from, to }) => `${from}+${to - from}`).join(' ')}`;
}

const blank = (): readonly Buffer[] => DISKS.map(({ virtualSizeBytes }) => Buffer.alloc(virtualSizeBytes, 0xaa));

describe('merged logs', () => {
  it('name each chunk once, with the newest bytes of each place', async () => {
    const disks = blank();
    const steps = await play(
      [
        [
          { disk: 0, offset: CHUNK - 1024, lengthBytes: 2048, fill: 1 },
          { disk: 0, offset: 2 * CHUNK, lengthBytes: 1024, fill: 2 },
          { disk: 1, offset: 512, lengthBytes: 512, fill: 3 },
        ],
        [
          { disk: 0, offset: CHUNK - 512, lengthBytes: 512, fill: 4 },
          { disk: 0, offset: 2 * CHUNK + 512, lengthBytes: 1024 },
          { disk: 0, offset: 4 * CHUNK + 1024, lengthBytes: 512, fill: 5 },
        ],
      ],
      disks,
    );
    expect(steps).toEqual(['0: 0 64512+1024', '0: 1 0+1024', '0: 2 0+1536', '0: 4 1024+512', '1: 0 512+512']);
    expect([CHUNK - 1024, CHUNK - 512, CHUNK, 2 * CHUNK, 2 * CHUNK + 512].map((at) => disks[0]![at])).toEqual([
      1, 4, 1, 2, 0,
    ]);
    expect(disks[0]![4 * CHUNK + 1535]).toBe(5);
  });

  it('give long zeros as one span, up to where a newer log has something', async () => {
    const all = { disk: 0, offset: 512, lengthBytes: DISKS[0]!.virtualSizeBytes - 512 };
    const older = { disk: 0, offset: 2 * CHUNK, lengthBytes: CHUNK, fill: 1 };
    expect(await play([[older], [all]], blank())).toEqual(['0: 0 512+65024', '0: 1-5 zeros']);
    expect(await play([[all], [older]], blank())).toEqual([
      '0: 0 512+65024',
      '0: 1-2 zeros',
      '0: 2 0+65536',
      '0: 3-5 zeros',
    ]);
    // The zeros of a newer log do not hide that those of an older one reach further.
    const newer = { disk: 0, offset: CHUNK, lengthBytes: CHUNK + 512 };
    expect(await play([[all], [newer]], blank())).toEqual([
      '0: 0 512+65024',
      '0: 1-2 zeros',
      '0: 2 0+65536',
      '0: 3-5 zeros',
    ]);
  });

  it('do not end in the middle of a disk whose last chunk is short', async () => {
    const tail = { disk: 0, offset: 4 * CHUNK, lengthBytes: 1536 };
    expect(await play([[tail]], blank())).toEqual(['0: 4-5 zeros']);
    expect(await play([[{ ...tail, lengthBytes: 1024 }]], blank())).toEqual(['0: 4 0+1024']);
  });

  it('of nothing are nothing', async () => {
    expect(await play([], blank())).toEqual([]);
    expect(await play([[], []], blank())).toEqual([]);
  });

  it('leave the same bytes as the logs one after the other, and count their data', async () => {
    const piece = fc.record({
      disk: fc.nat(1),
      from: fc.nat(520),
      sectors: fc.integer({ min: 1, max: 300 }),
      zeros: fc.boolean(),
    });
    const logs = fc.array(fc.array(piece, { maxLength: 12 }), { minLength: 1, maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(logs, async (thrown) => {
        const made = thrown.map((pieces, n) => inOrder(pieces, n));
        const expected = blank();
        for (const { disk, offset, lengthBytes, fill = 0 } of made.flat()) {
          expected[disk]!.fill(fill, offset, offset + lengthBytes);
        }
        const found = blank();
        const merge = new LogMerge(
          made.map((pieces) => log(pieces)),
          DISKS,
        );
        let last = -1;
        for (let step = await merge.next(); step; step = await merge.next()) {
          const at = step.disk * 100 + (step.kind === 'zeros' ? step.from : step.chunk);
          expect(at).toBeGreaterThan(last);
          last = step.disk * 100 + (step.kind === 'zeros' ? step.to - 1 : step.chunk);
          await playStep(merge, step, found);
        }
        expect(found.every((disk, i) => disk.equals(expected[i]!))).toBe(true);
        const data = made
          .flat()
          .reduce((sum, { fill, lengthBytes }) => sum + (fill === undefined ? 0 : lengthBytes), 0);
        expect(merge.dataBytes).toBe(data);
      }),
      { numRuns: 300 },
    );
  });

  it('close all logs, also those that were not read to the end', async () => {
    let ended = 0;
    const pieces = [
      { disk: 0, offset: 0, lengthBytes: 512, fill: 1 },
      { disk: 1, offset: 0, lengthBytes: 512, fill: 1 },
    ];
    const merge = new LogMerge([log(pieces, () => (ended += 1)), log(pieces, () => (ended += 1))], DISKS);
    await merge.next();
    await merge.close();
    expect(ended).toBe(2);
  });
});

/** What was thrown as a log can have it: in order, inside the disk, none overlapping. */
function inOrder(
  thrown: readonly {
    readonly disk: number;
    readonly from: number;
    readonly sectors: number;
    readonly zeros: boolean;
  }[],
  n: number,
): readonly Piece[] {
  const pieces: Piece[] = [];
  for (const { disk, from, sectors, zeros } of thrown.toSorted((a, b) => a.disk - b.disk || a.from - b.from)) {
    const last = pieces.at(-1);
    const free = last?.disk === disk ? last.offset + last.lengthBytes : 0;
    const offset = Math.max(free, from * 512);
    const lengthBytes = Math.min(sectors * 512, DISKS[disk]!.virtualSizeBytes - offset);
    if (lengthBytes > 0)
      pieces.push({ disk, offset, lengthBytes, fill: zeros ? undefined : 1 + n * 20 + pieces.length });
  }
  return pieces;
}
