/** Running a command of the operator's, as his shell would. */
import { spawn } from 'node:child_process';
import { BlockferryError } from '../index.ts';

/** @throws FREEZE_FAILED if it cannot be started, ends with another code than 0, or the signal fires */
export async function shellCommand(what: string, command: string, signal?: AbortSignal): Promise<void> {
  // Its output is talk: stdout of this program belongs to results.
  const child = spawn(command, { shell: true, stdio: ['ignore', process.stderr, process.stderr], signal });
  const ended = await new Promise<string | undefined>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, name) =>
      resolve(code === 0 ? undefined : `it ended with ${name ?? `exit code ${code}`}`),
    );
  });
  if (ended === undefined) return;
  throw new BlockferryError('FREEZE_FAILED', `the ${what} command failed: ${ended}`, {
    facts: { command },
    hint: 'run it by hand to see why; no recovery point was made',
  });
}
