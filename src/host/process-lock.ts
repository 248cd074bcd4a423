/**
 * One process at a time per directory: `lock-1`, `lock-2` … in it; the holder is the highest number.
 *
 * Node has no file locks, so a lock must survive its holder's kill -9 and still be found stale without a race. A holder
 * writes who it is (process id and its start time, so that a reused id is not mistaken); a newcomer that finds the
 * highest holder dead creates the next number exclusively. Only one newcomer can, and nobody ever removes the highest
 * number of a living holder. Holders of other machines are not seen here: the store's lease keeps those out.
 */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { BlockferryError } from '../errors.ts';
import type { FileSystem, ProcessLock } from '../ports.ts';
import { temporaryOwner } from './node-files.ts';

const NAME = /^lock-(\d+)$/;
const HOLDER_BYTES_MAX = 4096;

interface Holder {
  readonly host: string;
  readonly processId: number;
  readonly started: string;
}

/** What distinguishes a process from a later one of the same id: its start time where the system tells it. */
function startTime(processId: number): string {
  try {
    const stat = readFileSync(`/proc/${processId}/stat`, 'latin1');
    // Field 22, counted behind the command name, which is in parentheses and may hold blanks.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}

function isRunning(processId: number): boolean {
  try {
    process.kill(processId, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
  return true;
}

function isAlive(holder: Holder): boolean {
  // A holder on another machine cannot be looked at; take it for alive.
  if (holder.host !== hostname()) return true;
  if (!isRunning(holder.processId)) return false;
  return holder.started === startTime(holder.processId);
}

function parseHolder(bytes: Uint8Array | undefined): Holder | undefined {
  if (!bytes || bytes.byteLength === 0) return undefined;
  try {
    const { host, processId, started } = JSON.parse(Buffer.from(bytes).toString('utf8')) as Partial<Holder>;
    return typeof host === 'string' && typeof processId === 'number' && typeof started === 'string'
      ? { host, processId, started }
      : undefined;
  } catch {
    return undefined;
  }
}

/** Removes what processes that ended were writing in `directory`. Those that run may write there without its lock. */
async function removeTemporaries(directory: string, files: FileSystem): Promise<void> {
  for (const { name } of await files.list(directory)) {
    const owner = temporaryOwner(name);
    if (owner !== undefined && !isRunning(owner)) await files.remove(join(directory, name));
  }
}

async function lockNumbers(directory: string, files: FileSystem): Promise<readonly number[]> {
  const entries = await files.list(directory);
  return entries.map(({ name }) => Number(NAME.exec(name)?.[1] ?? 0)).filter((n) => n > 0);
}

async function readHolder(directory: string, number: number, files: FileSystem): Promise<Holder | undefined> {
  return parseHolder(await files.readSmall(join(directory, `lock-${number}`), HOLDER_BYTES_MAX));
}

/** Whether a higher lock than ours is there, or a lower one of who lives. */
async function isHeldByAnother(directory: string, own: number, files: FileSystem): Promise<boolean> {
  for (const number of await lockNumbers(directory, files)) {
    if (number > own) return true;
    if (number === own) continue;
    const holder = await readHolder(directory, number, files);
    if (holder && isAlive(holder)) return true;
  }
  return false;
}

/** Takes the lock of `directory`, which must exist, and removes what killed processes left half written there. @throws ITEM_LOCKED if a living process holds it. */
export async function lockDirectory(directory: string, what: string, files: FileSystem): Promise<ProcessLock> {
  const own: Holder = { host: hostname(), processId: process.pid, started: startTime(process.pid) };
  const ownBytes = Buffer.from(JSON.stringify(own));
  for (;;) {
    const numbers = await lockNumbers(directory, files);
    const highest = Math.max(0, ...numbers);
    const holder = highest === 0 ? undefined : await readHolder(directory, highest, files);
    if (holder && isAlive(holder)) {
      throw new BlockferryError('ITEM_LOCKED', `${what} is in use by process ${holder.processId} on ${holder.host}`, {
        facts: { what, processId: holder.processId, host: holder.host },
        hint: 'wait for it to end, or stop it; its work is kept and the next run resumes',
      });
    }
    const path = join(directory, `lock-${highest + 1}`);
    if (!(await files.createExclusive(path, ownBytes))) continue; // another newcomer was faster: look at it
    // Holders may have come and gone since the listing, and freed this number again, or all of them: then another one is there.
    if (await isHeldByAnother(directory, highest + 1, files)) {
      await files.remove(path);
      continue;
    }
    for (const n of numbers) await files.remove(join(directory, `lock-${n}`));
    await removeTemporaries(directory, files);
    const remove = async (): Promise<void> => {
      await files.remove(path);
      await files.removeEmpty(directory);
    };
    return { release: () => files.replace(path, new Uint8Array(0)), remove };
  }
}
