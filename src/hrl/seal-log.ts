/**
 * Sealing: closes a log that its writer could not close, at the end of its valid prefix. What follows that log in the
 * chain needs it closed.
 *
 *   cut the torn tail · sync · header with EOLLocation · sync
 *
 * A crash between any two steps leaves a log with the same valid prefix, and sealing is begun again. The header comes
 * last: it is never durable before what it closes, which may never have been synced.
 */
import { BlockferryError } from '../errors.ts';
import type { Ports, RandomAccessFile } from '../ports.ts';
import { ChangeLog } from './change-log.ts';
import { readLogBytes } from './log-file.ts';
import { closeLogHeader, HEADER_BYTES, toLogTime } from './log-header.ts';

export interface SealLogOptions {
  readonly ports: Pick<Ports, 'files' | 'clock' | 'failpoint'>;
  /** Ends the scan, before anything is changed. */
  readonly signal?: AbortSignal;
}

/** A log that is closed. */
export interface SealedLog {
  readonly uniqueId: string;
  readonly previousUniqueId: string;
  readonly entries: number;
  /** EOLLocation. */
  readonly endOffset: number;
  /** It was closed by its writer, and nothing was changed. */
  readonly wasClosed: boolean;
  /** Bytes behind the valid prefix that were cut off. */
  readonly cutBytes: number;
}

/**
 * Closes the log if it is not, durably. Nobody may have it open for writing.
 * @throws DISK_NOT_FOUND, DISK_UNREADABLE, HRL_HEADER, HRL_TORN, HRL_BLOCK, ABORTED, OUTPUT_FAILED
 */
export async function sealLog(path: string, options: SealLogOptions): Promise<SealedLog> {
  const { ports, signal } = options;
  const log = await ChangeLog.open(path, options);
  try {
    const { endOffset, isClosed, header } = log;
    const sealed = { uniqueId: header.uniqueId, previousUniqueId: header.previousUniqueId, endOffset };
    if (isClosed) return { ...sealed, entries: header.entryCount, wasClosed: true, cutBytes: 0 };
    let entryCount = 0;
    for await (const { entries } of log.blocksNewestFirst({ signal })) entryCount += entries.length;
    const cutBytes = (await log.file.sizeBytes()) - endOffset;
    await close(path, endOffset, entryCount, ports);
    return { ...sealed, entries: entryCount, wasClosed: false, cutBytes };
  } finally {
    await log.close();
  }
}

async function close(
  path: string,
  endOffset: number,
  entryCount: number,
  { files, clock, failpoint }: SealLogOptions['ports'],
): Promise<void> {
  const header = new Uint8Array(HEADER_BYTES);
  let file: RandomAccessFile | undefined;
  try {
    file = await files.open(path, 'modify');
    await file.truncate(endOffset);
    await file.sync();
    await failpoint('hrl.after-data');
    await readLogBytes(file, header, 0);
    await file.write(closeLogHeader(header, { endOffset, entryCount, lastModified: toLogTime(clock.nowMs()) }), 0);
    await file.sync();
    await failpoint('hrl.after-close');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const facts = { source: path };
    throw new BlockferryError('OUTPUT_FAILED', `${path}: the log cannot be closed: ${reason}`, { facts, cause });
  } finally {
    await file?.close();
  }
}
