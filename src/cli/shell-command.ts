/** Running a command of the operator's, as his shell would. */
import { spawn } from 'node:child_process';
import { BlockferryError } from '../index.ts';

const IS_WINDOWS = process.platform === 'win32';

/** @throws FREEZE_FAILED if it cannot be started, ends with another code than 0, or the signal fires */
export async function shellCommand(what: string, command: string, signal?: AbortSignal): Promise<void> {
  // Its output is talk: stdout of this program belongs to results. In a group of its own it can be ended with its children.
  const stdio = ['ignore', process.stderr, process.stderr] as const;
  const child = spawn(command, { shell: true, stdio: [...stdio], detached: !IS_WINDOWS });
  const end = (): void => {
    if (child.pid === undefined || child.exitCode !== null) return;
    if (IS_WINDOWS) child.kill();
    else process.kill(-child.pid);
  };
  signal?.addEventListener('abort', end, { once: true });
  const fault = await new Promise<string | undefined>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, name) =>
      resolve(code === 0 ? undefined : `it ended with ${name ?? `exit code ${code}`}`),
    );
  });
  signal?.removeEventListener('abort', end);
  if (fault === undefined) return;
  throw new BlockferryError('FREEZE_FAILED', `the ${what} command failed: ${fault}`, {
    facts: { command },
    hint: 'run it by hand to see why; no recovery point was made',
  });
}
