/**
 * Replay: brings a disk to the state that a chain of logs leaves. All logs are verified first, data and bounds too, so a
 * bad log changes nothing. Then each range is written once, in disk order, with neighbours in one write; zeros are made
 * by their length.
 *
 * A replay that was interrupted is repaired by running it again: it writes the same bytes to the same places.
 */
import { throwIfAborted } from '../errors.ts';
import type { ChangeLog } from './change-log.ts';
import { type CoalesceOptions, coalesceLogs, readRanges } from './coalesce.ts';
import { WINDOW_BYTES } from './log-file.ts';
import { type LoggedDisk, verifyLog } from './verify-log.ts';

/** A disk that is open for writing. */
export interface ReplayTarget {
  readonly info: LoggedDisk;
  write(bytes: Uint8Array, offset: number): Promise<void>;
  /** Makes the range read as zeros. */
  zero(offset: number, lengthBytes: number): Promise<void>;
  /** Makes durable what was written. */
  flush(): Promise<void>;
}

export interface ReplayOptions extends CoalesceOptions {
  /** Verification and writing are one phase each. */
  readonly onProgress?: (phase: 'verify' | 'write', doneBytes: number) => void;
}

export interface ReplayReport {
  /** Writes in the logs, and their bytes. */
  readonly entries: number;
  readonly loggedBytes: number;
  /** Bytes that went to the disk: less than logged by what was written over. */
  readonly writtenBytes: number;
}

/**
 * Plays the logs onto the disk and makes it durable.
 * @param logs Oldest first, as `orderChain` returns them
 * @throws HRL_BLOCK, HRL_ENTRY, HRL_TORN before anything is written
 */
export async function replayLogs(
  logs: readonly ChangeLog[],
  target: ReplayTarget,
  options: ReplayOptions = {},
): Promise<ReplayReport> {
  const { entries, loggedBytes } = await verifyAll(logs, options, target.info);
  const writtenBytes = await writeRanges(logs, target, options);
  await target.flush();
  return { entries, loggedBytes, writtenBytes };
}

async function writeRanges(logs: readonly ChangeLog[], target: ReplayTarget, options: ReplayOptions): Promise<number> {
  const { signal, onProgress } = options;
  const gathered = Buffer.allocUnsafe(WINDOW_BYTES);
  let [gatheredOffset, gatheredBytes, zeroBytes, writtenBytes] = [0, 0, 0, 0];
  /** Writes what neighbours there are: bytes, or zeros. */
  const write = async (): Promise<void> => {
    if (gatheredBytes + zeroBytes === 0) return;
    throwIfAborted(signal);
    if (zeroBytes > 0) await target.zero(gatheredOffset, zeroBytes);
    else await target.write(gathered.subarray(0, gatheredBytes), gatheredOffset);
    writtenBytes += gatheredBytes + zeroBytes;
    [gatheredBytes, zeroBytes] = [0, 0];
    onProgress?.('write', writtenBytes);
  };
  for await (const next of readRanges(coalesceLogs(logs, options), Buffer.allocUnsafe(WINDOW_BYTES))) {
    const isBehind = next.byteOffset === gatheredOffset + gatheredBytes + zeroBytes;
    if ('bytes' in next) {
      const fits = isBehind && zeroBytes === 0 && gatheredBytes + next.bytes.byteLength <= WINDOW_BYTES;
      if (!fits) await write();
      if (gatheredBytes === 0) gatheredOffset = next.byteOffset;
      gathered.set(next.bytes, gatheredBytes);
      gatheredBytes += next.bytes.byteLength;
    } else {
      if (!isBehind || gatheredBytes > 0) await write();
      if (zeroBytes === 0) gatheredOffset = next.byteOffset;
      zeroBytes += next.zeroBytes;
    }
  }
  await write();
  return writtenBytes;
}

/** Verifies all logs before the first is used. */
export async function verifyAll(
  logs: readonly ChangeLog[],
  options: ReplayOptions,
  disk?: LoggedDisk,
): Promise<{ readonly entries: number; readonly loggedBytes: number }> {
  let [entries, loggedBytes] = [0, 0];
  for (const log of logs) {
    const before = loggedBytes;
    const check = await verifyLog(log, {
      signal: options.signal,
      disk,
      onProgress: (doneBytes) => options.onProgress?.('verify', before + doneBytes),
    });
    entries += check.entries;
    loggedBytes += check.dataBytes;
  }
  return { entries, loggedBytes };
}
