/** fio as an NBD client. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** Runs one job on the disk at `uri`; what it says on stdout. Its own files go to `folder`. */
export async function fio(uri: string, folder: string, job: Readonly<Record<string, string>>): Promise<string> {
  const all = { name: 'job', ioengine: 'nbd', uri, ...job };
  const args = Object.entries(all).map(([key, value]) => `--${key}=${value}`);
  const { stdout } = await execute('fio', args, { cwd: folder });
  return stdout;
}
