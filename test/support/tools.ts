/** Programs of others that tests compare with. In CI all of them must be there. */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Why tests that need `command` are skipped here, which it prints; undefined if they run. Throws in CI: none may skip. */
export function missingTool(command: string): string | undefined {
  const found = (process.env['PATH'] ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (found) return undefined;
  const reason = `${command} is not installed`;
  if (process.env['CI'] === 'true') throw new Error(reason);
  console.warn(`skipped: ${reason}`);
  return reason;
}
