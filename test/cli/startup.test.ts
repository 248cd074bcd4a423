import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { inScratch } from './support.ts';

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

function loadedModules(args: readonly string[], end: 'done' | 'may fail' = 'done'): string {
  const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
  const command = end === 'done' ? 'exec "$@" 2>&1' : '"$@" 2>&1 || true';
  return execFileSync('sh', ['-c', command, 'sh', process.execPath, '--import', HOOK, main, ...args], {
    encoding: 'utf8',
  });
}

/** Our own files among the modules. */
function ownFiles(modules: string): ReadonlySet<string> {
  const lines = modules.split('\n').filter((line) => line.startsWith('file:') && !line.includes('/node_modules/'));
  return new Set(lines.map((line) => line.replace(/.*\/dist\//, '')));
}

test.runIf(process.platform !== 'win32')(
  'a look at a disk waits for no cloud SDK, no thread pool and few files',
  () => {
    const modules = loadedModules(['--version']);
    expect(modules).toContain('node_modules/commander/');
    for (const heavy of ['@azure', 'piscina', 'hash-wasm', 'lz4', 'luxon']) expect(modules).not.toContain(heavy);
    const files = ownFiles(modules);
    expect(files).toContain('cli/main.js');
    // A file costs a millisecond: what `npm run build` makes of 130 modules.
    expect(files.size).toBeLessThan(10);
  },
);

test.runIf(process.platform !== 'win32')('what has its replica in a folder waits for no cloud SDK', async () => {
  await inScratch(async (directory) => {
    const url = pathToFileURL(join(directory, 'replica')).href;
    const key = join(directory, 'a.key');
    loadedModules(['keygen', key]);
    const modules = loadedModules(['points', 'web1', '--from', url, '--key-file', key, '--json'], 'may fail');
    expect(modules).toContain('"REPLICA_NOT_FOUND"');
    for (const heavy of ['@azure', 'yaml', 'prom-client']) expect(modules).not.toContain(heavy);
    expect(ownFiles(modules).size).toBeLessThan(20);
  });
});
