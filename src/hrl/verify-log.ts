/** Verification: every check of a log, those of its data too. What passes is played; what fails is not begun. */
import { throwIfAborted } from '../errors.ts';
import type { ChangeLog } from './change-log.ts';
import { logError } from './fault.ts';
import { FileWindow, WINDOW_BYTES } from './log-file.ts';
import type { LogEntry } from './metadata-block.ts';

/** What a sound log holds. */
export interface LogCheck {
  readonly blocks: number;
  readonly entries: number;
  readonly dataBytes: number;
  /** Of those, bytes whose writer filled DataChecksum. */
  readonly checkedBytes: number;
}

/** What a disk asks of the writes that go to it. */
export interface LoggedDisk {
  readonly virtualSizeBytes: number;
  readonly logicalSectorBytes: number;
}

export interface VerifyLogOptions {
  readonly signal?: AbortSignal | undefined;
  /** The disk that the log must fit. */
  readonly disk?: LoggedDisk | undefined;
  /** Bytes of data looked at so far. */
  readonly onProgress?: (doneBytes: number) => void;
}

/** @throws HRL_BLOCK, HRL_ENTRY, HRL_TORN, DISK_UNREADABLE, ABORTED */
export async function verifyLog(log: ChangeLog, options: VerifyLogOptions = {}): Promise<LogCheck> {
  const { signal, disk, onProgress } = options;
  const window = new FileWindow(log.file, log.endOffset, 0);
  let [blocks, entryCount, dataBytes, checkedBytes] = [0, 0, 0, 0];
  for await (const { entries } of log.blocks({ signal })) {
    for (const entry of entries) {
      if (disk !== undefined) checkFits(log, entry, disk);
      if (entry.dataChecksum !== 0) {
        await checkData(log, entry, window, signal);
        checkedBytes += entry.dataLength;
      }
      dataBytes += entry.dataLength;
    }
    blocks += 1;
    entryCount += entries.length;
    onProgress?.(dataBytes);
  }
  return { blocks, entries: entryCount, dataBytes, checkedBytes };
}

function checkFits(log: ChangeLog, { byteOffset, dataLength, fileOffset }: LogEntry, disk: LoggedDisk): void {
  const { virtualSizeBytes, logicalSectorBytes } = disk;
  const isInside = byteOffset + dataLength <= virtualSizeBytes;
  if (isInside && byteOffset % logicalSectorBytes === 0 && dataLength % logicalSectorBytes === 0) return;
  const facts = { byteOffset, dataLength, virtualSizeBytes, logicalSectorBytes };
  const rule = 'a write is whole sectors inside the disk';
  throw logError(log.path, { code: 'HRL_ENTRY', offset: fileOffset, rule, facts }, 'see that the log is of this disk');
}

async function checkData(
  log: ChangeLog,
  { fileOffset, dataLength, dataChecksum }: LogEntry,
  window: FileWindow,
  signal: AbortSignal | undefined,
): Promise<void> {
  let sum = 0;
  for (let done = 0; done < dataLength; ) {
    const lengthBytes = Math.min(dataLength - done, WINDOW_BYTES);
    if (!window.covers(fileOffset + done, lengthBytes)) {
      throwIfAborted(signal);
      await window.moveTo(fileOffset + done);
    }
    sum = (sum + window.sumOf(fileOffset + done, lengthBytes)) >>> 0;
    done += lengthBytes;
  }
  const computed = ~sum >>> 0;
  if (computed === dataChecksum) return;
  const facts = { stored: dataChecksum, computed };
  throw logError(log.path, { code: 'HRL_ENTRY', offset: fileOffset, rule: 'the checksum of the data holds', facts });
}
