import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

/** Prints the URL of every module that is loaded. */
const HOOK = `data:text/javascript,${encodeURIComponent(`
  import { register } from 'node:module';
  register('data:text/javascript,' + encodeURIComponent(\`
    export async function resolve(specifier, context, next) {
      const result = await next(specifier, context);
      process._rawDebug(result.url);
      return result;
    }
  \`));
`)}`;

function loadedModules(args: readonly string[]): string {
  const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
  const command = `exec "$@" 2>&1`;
  return execFileSync('sh', ['-c', command, 'sh', process.execPath, '--import', HOOK, main, ...args], {
    encoding: 'utf8',
  });
}

test.runIf(process.platform !== 'win32')('a look at a disk waits for no cloud SDK and no thread pool', () => {
  const modules = loadedModules(['--version']);
  expect(modules).toContain('node_modules/commander/');
  for (const heavy of ['@azure', 'piscina', 'hash-wasm', 'agent/index.js']) expect(modules).not.toContain(heavy);
});
