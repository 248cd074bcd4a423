/**
 * The logs of one disk: those that are closed and wait for the replica, and the one that is running.
 *
 * They lie in the folder of the disk, `<disk>.<number>.hrl`, and form one chain that begins behind `head`. Knows files and
 * chain; when to rotate or to give way is the item's business.
 */
import { basename, dirname, join } from 'node:path';
import { LogWriter } from '../hrl/index.ts';
import type { FileSystem, Ports } from '../ports.ts';
import type { DiskTracking, NamedLog } from './tracking-state.ts';

/** A log that takes no more writes. */
export interface ClosedLog extends NamedLog {
  /** Bytes it takes on its volume: holes take none. */
  readonly storedBytes: number;
}

const NUMBER_DIGITS = 6;
const LOG_SUFFIX = /^\.(\d{1,15})\.hrl$/;

/** Files that are named as logs of a disk, whatever they hold. */
export async function listLogs(
  diskPath: string,
  files: FileSystem,
): Promise<readonly { readonly path: string; readonly number: number }[]> {
  const folder = dirname(diskPath);
  const name = basename(diskPath);
  return (await files.list(folder)).flatMap((entry) => {
    const match = entry.name.startsWith(name) ? LOG_SUFFIX.exec(entry.name.slice(name.length)) : null;
    return match ? [{ path: join(folder, entry.name), number: Number(match[1]) }] : [];
  });
}

export class DiskLogs {
  readonly #diskPath: string;
  readonly #ports: Pick<Ports, 'files' | 'clock' | 'random' | 'failpoint'>;
  #head: string;
  #closed: ClosedLog[] = [];
  #running: LogWriter | undefined;

  constructor(diskPath: string, head: string, ports: Pick<Ports, 'files' | 'clock' | 'random' | 'failpoint'>) {
    this.#diskPath = diskPath;
    this.#head = head;
    this.#ports = ports;
  }

  get head(): string {
    return this.#head;
  }

  /** Oldest first. */
  get closed(): readonly ClosedLog[] {
    return this.#closed;
  }

  get running(): LogWriter | undefined {
    return this.#running;
  }

  get storedBytes(): number {
    return this.#closed.reduce((sum, log) => sum + log.storedBytes, this.#running?.storedBytes ?? 0);
  }

  /** As the state names them. */
  get named(): DiskTracking['logs'] {
    const closed = this.#closed.map(({ path, uniqueId }) => ({ path, uniqueId }));
    const running = this.#running;
    return running ? [...closed, { path: running.path, uniqueId: running.uniqueId }] : closed;
  }

  /** UniqueId that the next log follows. */
  get tail(): string {
    return this.#running?.uniqueId ?? this.#closed.at(-1)?.uniqueId ?? this.#head;
  }

  /** Takes over a log that was closed in an earlier run. */
  addClosed(log: ClosedLog): void {
    this.#closed.push(log);
  }

  /** Creates the log behind the last one; it is not running yet. */
  async create(dataWriteGuid: string, previousUniqueId: string = this.tail): Promise<LogWriter> {
    const numbers = (await listLogs(this.#diskPath, this.#ports.files)).map((log) => log.number);
    const number = Math.max(0, ...numbers) + 1;
    const path = `${this.#diskPath}.${String(number).padStart(NUMBER_DIGITS, '0')}.hrl`;
    return await LogWriter.create(path, { ports: this.#ports, previousUniqueId, dataWriteGuid });
  }

  /** Puts `next` in place of the running log and returns that, which its caller closes before anyone reads it. */
  exchange(next: LogWriter | undefined): LogWriter | undefined {
    const before = this.#running;
    this.#running = next;
    if (before) this.#closed.push({ path: before.path, uniqueId: before.uniqueId, storedBytes: before.storedBytes });
    return before;
  }

  /** Begins a new chain: what was logged is given up. Its files are the caller's to remove. */
  restart(head: string): void {
    this.#head = head;
    this.#closed = [];
    this.#running = undefined;
  }

  /**
   * The replica has the chain up to `head`: returns the files that nobody needs any more, or undefined if `head` is not
   * in this chain.
   */
  acknowledge(head: string): readonly string[] | undefined {
    if (head === this.#head) return [];
    const last = this.#closed.findIndex(({ uniqueId }) => uniqueId === head);
    if (last < 0) return undefined;
    const done = this.#closed.slice(0, last + 1);
    this.#closed = this.#closed.slice(last + 1);
    this.#head = head;
    return done.map(({ path }) => path);
  }
}
