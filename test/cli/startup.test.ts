import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
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

/** The SDK for Azure is in one of our own files. */
function loadsSdk(modules: string): boolean {
  const text = (file: string): string => readFileSync(new URL(`../../dist/${file}`, import.meta.url), 'utf8');
  return [...ownFiles(modules)].some((file) => text(file).includes('class PageBlobClient '));
}

test.runIf(process.platform !== 'win32')(
  'a look at a disk waits for no cloud SDK, no thread pool and few files',
  () => {
    const modules = loadedModules(['--version']);
    expect(modules).toContain('node_modules/commander/');
    for (const heavy of ['@azure', 'piscina', 'hash-wasm', 'lz4', 'luxon']) expect(modules).not.toContain(heavy);
    expect(loadsSdk(modules)).toBe(false);
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
    expect(loadsSdk(modules)).toBe(false);
    expect(ownFiles(modules).size).toBeLessThan(20);
  });
});

test.runIf(process.platform !== 'win32')(
  'what has its replica in Azure finds the SDK in one file of ours',
  async () => {
    await inScratch(async (directory) => {
      const key = join(directory, 'a.key');
      loadedModules(['keygen', key]);
      // Loaded before the container is looked at, whose name is none.
      const from = ['--from', 'https://account.example/X', '--key-file', key];
      const modules = loadedModules(['points', 'web1', ...from, '--json'], 'may fail');
      expect(modules).toContain('is no container name');
      expect(loadsSdk(modules)).toBe(true);
      for (const inside of ['@azure', '@typespec', 'fast-xml']) expect(modules).not.toContain(`node_modules/${inside}`);
    });
  },
);

test.runIf(process.platform !== 'win32')('what has its replica behind a gateway waits for no cloud SDK', async () => {
  await inScratch(async (directory) => {
    const key = join(directory, 'a.key');
    loadedModules(['keygen', key]);
    // Loaded before it finds that nobody told it a token.
    const from = ['--from', 'gateway+http://127.0.0.1:9/store/web1', '--key-file', key];
    const modules = loadedModules(['points', 'web1', ...from, '--json'], 'may fail');
    expect(modules).toContain('open-gateway');
    expect(loadsSdk(modules)).toBe(false);
  });
});

test('no file asks whether a body is a form, for which Node would load all of its fetch', () => {
  const directory = new URL('../../dist/cli/', import.meta.url);
  const texts = readdirSync(directory)
    .filter((name) => name.endsWith('.js'))
    .map((name) => readFileSync(new URL(name, directory), 'utf8'));
  expect(texts.some((text) => text.includes('formDataPolicyName'))).toBe(true);
  expect(texts.filter((text) => /typeof FormData\b|instanceof FormData\b/.test(text))).toEqual([]);
});

test('the program imports only packages that it declares, and has the licences of those that are inside', () => {
  const root = new URL('../../', import.meta.url);
  const { dependencies } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8')) as {
    readonly dependencies: Readonly<Record<string, string>>;
  };
  const directory = new URL('dist/cli/', root);
  const files = readdirSync(directory).filter((name) => name.endsWith('.js'));
  const texts = files.map((name) => readFileSync(new URL(name, directory), 'utf8')).join('\n');
  const imported = [...texts.matchAll(/^(?:import|export)\b.*? from "([^"]+)";$/gm)].map(([, name]) => name!);
  const packages = new Set(imported.filter((name) => !name.startsWith('.') && !isBuiltin(name)));
  expect(packages).toContain('piscina');
  for (const name of packages) expect(dependencies).toHaveProperty([name]);
  const maps = readdirSync(directory).filter((name) => name.endsWith('.js.map'));
  const sources = maps.flatMap(
    (name) => (JSON.parse(readFileSync(new URL(name, directory), 'utf8')) as { readonly sources: string[] }).sources,
  );
  const inside = sources.flatMap((source) => /\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(source)?.[1] ?? []);
  expect(inside).toContain('@azure/storage-blob');
  const licences = readFileSync(new URL('THIRD-PARTY.txt', directory), 'utf8');
  for (const name of new Set(inside)) expect(licences).toMatch(new RegExp(`^${name} \\d`, 'm'));
});
