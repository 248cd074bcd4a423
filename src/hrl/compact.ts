/**
 * Compaction: one log in place of a chain, without the writes that later ones wrote over. Played onto any disk it leaves
 * what the chain leaves.
 *
 * The new log takes the chain's place: PreviousUniqueId of its first log, UniqueId and DataWriteGuid of its last, so what
 * follows the chain follows the new log. It grows as `<path>.partial` and gets its name when it is closed.
 */
import { dirname } from 'node:path';
import { BlockferryError, throwIfAborted } from '../errors.ts';
import type { Ports } from '../ports.ts';
import type { ChangeLog } from './change-log.ts';
import { coalesceLogs, readRanges } from './coalesce.ts';
import { WINDOW_BYTES } from './log-file.ts';
import { LogWriter } from './log-writer.ts';
import { type ReplayOptions, type ReplayReport, verifyAll } from './replay.ts';

export interface CompactOptions extends ReplayOptions {
  readonly ports: Pick<Ports, 'files' | 'clock' | 'random' | 'failpoint'>;
}

/**
 * @param logs Oldest first, as `orderChain` returns them; one at least
 * @throws OUTPUT_EXISTS, OUTPUT_FAILED; HRL_BLOCK, HRL_ENTRY, HRL_TORN before anything is written
 */
export async function compactLogs(
  logs: readonly ChangeLog[],
  path: string,
  options: CompactOptions,
): Promise<ReplayReport> {
  const [first, last] = [logs[0], logs.at(-1)];
  if (first === undefined || last === undefined) throw new RangeError('there is no log to compact');
  const { ports, signal, onProgress } = options;
  await refuseExisting(path, ports.files);
  const { entries, loggedBytes } = await verifyAll(logs, options);
  const { uniqueId, dataWriteGuid } = last.header;
  const partial = `${path}.partial`;
  const writer = await LogWriter.create(partial, {
    ports,
    ...{ uniqueId, previousUniqueId: first.header.previousUniqueId, timeStamp: first.header.timeStamp },
    ...(dataWriteGuid === undefined ? {} : { dataWriteGuid }),
  });
  let writtenBytes = 0;
  try {
    const buffer = Buffer.allocUnsafe(WINDOW_BYTES);
    for await (const write of readRanges(coalesceLogs(logs, options), buffer)) {
      throwIfAborted(signal);
      await writer.append([write]);
      writtenBytes += 'bytes' in write ? write.bytes.byteLength : write.zeroBytes;
      onProgress?.('write', writtenBytes);
    }
    await writer.close();
    await refuseExisting(path, ports.files);
    await ports.files.rename(partial, path);
    await ports.files.syncDirectory(dirname(path));
  } catch (error) {
    await writer.abandon();
    await ports.files.remove(partial);
    throw error;
  }
  return { entries, loggedBytes, writtenBytes };
}

async function refuseExisting(path: string, files: Ports['files']): Promise<void> {
  if (!(await files.exists(path))) return;
  const hint = 'name another file, or remove this one';
  throw new BlockferryError('OUTPUT_EXISTS', `${path}: already exists`, { facts: { source: path }, hint });
}
