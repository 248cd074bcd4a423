/**
 * Convert: the content of a disk into another image, or as raw bytes into a stream.
 *
 * An image gets only what is not zeros: holes of the source and runs of zeros inside its data (64 KiB units) are left
 * out, so the image is sparse where its format or its file system allows. Reading runs ahead of writing; several
 * writes are in flight; memory is what readDisk holds.
 */
import { BlockferryError, isBlockferryError } from '../errors.ts';
import type { DiskWriter, FileRange, VirtualDisk } from '../vhd/index.ts';
import { HOLE_RUN_BYTES, nonZeroSpans, readDisk, type Span, type ToolOptions, zeroBlocks } from './read-disk.ts';

/** What a conversion did. */
export interface ConvertReport {
  readonly virtualSizeBytes: number;
  /** Bytes read from the source: its data, without its holes. */
  readonly readBytes: number;
  /** Bytes written, without the tables of the format. */
  readonly writtenBytes: number;
}

/** Takes bytes in order; the promise resolves when more may come. The bytes may change after that. */
export type ByteSink = (bytes: Uint8Array) => Promise<void>;

/**
 * Copies the content of `disk` into `writer`, which must be of the same virtual size, and finishes it. After any error
 * and after an abort the partial image is removed.
 * @throws DISK_UNREADABLE, OUTPUT_FAILED, ABORTED
 */
export async function convertDisk(
  disk: VirtualDisk,
  writer: DiskWriter,
  options: ToolOptions = {},
): Promise<ConvertReport> {
  try {
    const copied = await copyRuns(disk, writer, options);
    await writer.finish();
    return { virtualSizeBytes: disk.info.virtualSizeBytes, ...copied };
  } catch (error) {
    // The first error is the one to report; a partial file that cannot be removed is found by the next run.
    await writer.abort().catch(() => {});
    throw error;
  }
}

async function copyRuns(
  disk: VirtualDisk,
  writer: DiskWriter,
  options: ToolOptions,
): Promise<Pick<ConvertReport, 'readBytes' | 'writtenBytes'>> {
  const writing = new Set<Promise<void>>();
  const failures: unknown[] = [];
  let readBytes = 0;
  let writtenBytes = 0;
  try {
    for await (const run of readDisk(disk, options)) {
      if (run.kind === 'zero') continue;
      readBytes += run.lengthBytes;
      const placed: { readonly span: Span; readonly ranges: readonly FileRange[] }[] = [];
      for (const span of nonZeroSpans(run.bytes, run.offset)) {
        writtenBytes += span.lengthBytes;
        placed.push({ span, ranges: await writer.place(run.offset + span.fromBytes, span.lengthBytes) });
      }
      // Nothing is being written until all is placed, so an error of `place` leaves no write behind that is not in
      // `writing`. The buffer goes back when its last write has ended; that bounds what is in flight.
      const writes = placed.map(({ span, ranges }) => writeRanges(ranges, run.bytes, span));
      const written = Promise.allSettled(writes).then((results) => {
        for (const result of results) if (result.status === 'rejected') failures.push(result.reason);
        run.release();
        writing.delete(written);
      });
      writing.add(written);
      if (failures.length > 0) break;
    }
  } finally {
    await Promise.all(writing);
  }
  if (failures.length > 0) throw failures[0];
  return { readBytes, writtenBytes };
}

async function writeRanges(ranges: readonly FileRange[], bytes: Uint8Array, span: Span): Promise<void> {
  let from = span.fromBytes;
  for (const { file, fileOffset, lengthBytes } of ranges) {
    try {
      await file.write(bytes.subarray(from, from + lengthBytes), fileOffset);
    } catch (cause) {
      throw outputError(file.path, fileOffset, lengthBytes, cause);
    }
    from += lengthBytes;
  }
}

function outputError(path: string, offset: number, lengthBytes: number, cause: unknown): unknown {
  if (isBlockferryError(cause)) return cause;
  const full = cause instanceof Error && 'code' in cause && cause.code === 'ENOSPC';
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new BlockferryError(
    'OUTPUT_FAILED',
    `${path}: ${lengthBytes} bytes at offset ${offset} cannot be written: ${reason}`,
    {
      cause,
      facts: { source: path, offset },
      ...(full ? { hint: 'free space on the volume, or name an output on another one' } : {}),
    },
  );
}

/**
 * Hands every byte of the disk to `sink`, in order; holes arrive as zeros.
 * @throws DISK_UNREADABLE, ABORTED, and what `sink` throws
 */
export async function streamDisk(disk: VirtualDisk, sink: ByteSink, options: ToolOptions = {}): Promise<ConvertReport> {
  const virtualSizeBytes = disk.info.virtualSizeBytes;
  let readBytes = 0;
  for await (const run of readDisk(disk, { ...options, holeBytesMax: HOLE_RUN_BYTES })) {
    if (run.kind === 'zero') {
      for (const zeros of zeroBlocks(run.lengthBytes)) await sink(zeros);
    } else {
      await sink(run.bytes);
      readBytes += run.lengthBytes;
      run.release();
    }
  }
  return { virtualSizeBytes, readBytes, writtenBytes: virtualSizeBytes };
}
