/** nbdkit between a client and an NBD server, with a log of all that passes. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { onTestFinished, vi } from 'vitest';
import type { DeviceCall } from './memory-device.ts';

export interface NbdkitLog {
  /** Where clients connect. */
  readonly uri: string;
  /** The changes and flushes that passed so far, in the order in which they came. */
  readonly calls: () => Promise<readonly LoggedCall[]>;
}

/** A change or a flush, with the lines of the log at which it came and was answered: so much is known of its place. */
export interface LoggedCall extends DeviceCall {
  readonly came: number;
  readonly answered: number;
}

/** Starts nbdkit before the server at the Unix socket `server`, until the end of the test. Its files go to `folder`. */
export async function startNbdkitLog(server: string, folder: string): Promise<NbdkitLog> {
  const [socket, log] = [join(folder, 'nbdkit'), join(folder, 'nbdkit.txt')];
  const args = ['-f', '-U', socket, '--filter=log', 'nbd', `socket=${server}`, `logfile=${log}`];
  const child = spawn('nbdkit', args, { stdio: 'inherit' });
  const ended = once(child, 'exit');
  onTestFinished(async () => {
    child.kill('SIGTERM');
    await ended;
  });
  await vi.waitFor(() => {
    if (!existsSync(socket)) throw new Error('nbdkit does not listen');
  }, 10_000);
  return { uri: `nbd+unix:///?socket=${socket}`, calls: async () => parseLog(await readFile(log, 'utf8')) };
}

function parseLog(text: string): readonly LoggedCall[] {
  const lines = text.split('\n');
  const answers = new Map<string, number>();
  for (const [number, line] of lines.entries()) {
    const [, connection, id] = / (connection=\d+) \.\.\.(?:Write|Zero|Trim|Flush) (id=\d+) return=0/.exec(line) ?? [];
    if (id !== undefined) answers.set(`${connection} ${id}`, number);
  }
  return lines.flatMap((line, came) => {
    const [, connection, name, id, rest] =
      / (connection=\d+) (Write|Zero|Trim|Flush) (id=\d+) (.*)\.\.\.$/.exec(line) ?? [];
    if (name === undefined) return [];
    const answered = answers.get(`${connection} ${id}`);
    if (answered === undefined) throw new Error(`nbdkit did not answer, or not well: ${line}`);
    return [{ ...callOf(name, rest!), came, answered }];
  });
}

/** The call that the server should get. */
function callOf(name: string, rest: string): DeviceCall {
  if (name === 'Flush') return { name: 'flush', offset: 0, lengthBytes: 0 };
  const field = (key: string): number => Number(new RegExp(`${key}=(\\S+)`).exec(rest)?.[1]);
  const [offset, lengthBytes, fua] = [field('offset'), field('count'), field('fua') === 1];
  if (name === 'Write') return { name: 'write', offset, lengthBytes, fua };
  return { name: 'zero', offset, lengthBytes, unmap: name === 'Trim' || field('trim') === 1, fua };
}
