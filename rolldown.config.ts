/**
 * The program in a few files: main.js, what it loads on demand, and the thread. Loading a file costs Node 20 a millisecond, and
 * a command needs up to 340 of ours, and 270 of the SDK where the store is in Azure: those are put in too, with their licences in
 * THIRD-PARTY.txt. Other packages stay outside. The library stays as it is compiled, file by file.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { join } from 'node:path';
import { defineConfig, type Plugin } from 'rolldown';

/** What a store in Azure needs for each request; with all that these need. Not `@azure/identity`: few need it, and it is as large again. */
const INSIDE = ['@azure/storage-blob', '@azure/core-rest-pipeline'];
const { dependencies } = JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8'));
const OUTSIDE = Object.keys(dependencies).filter((name) => !INSIDE.includes(name));

/** Writes the licence of every package of which something is inside. */
function licences(): Plugin {
  return {
    name: 'licences',
    generateBundle() {
      const packages = new Set<string>();
      for (const id of this.getModuleIds()) {
        const [, directory] = /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(id) ?? [];
        if (directory !== undefined) packages.add(directory);
      }
      const texts = [...packages].sort().map((directory) => {
        const { name, version, license } = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'));
        const file = readdirSync(directory).find((entry) => /^licen[cs]e/i.test(entry));
        const text = file === undefined ? `Licence: ${license}` : readFileSync(join(directory, file), 'utf8').trim();
        return `${name} ${version}\n\n${text}\n`;
      });
      this.emitFile({ type: 'asset', fileName: 'THIRD-PARTY.txt', source: texts.join(`\n${'-'.repeat(80)}\n\n`) });
    },
  };
}

export default defineConfig({
  input: { main: 'src/cli/main.ts', thread: 'src/workers/thread.ts' },
  platform: 'node',
  external: (id) => isBuiltin(id) || OUTSIDE.some((name) => id === name || id.startsWith(`${name}/`)),
  plugins: [licences()],
  // The SDK asks whether a body is a form. None of ours is, and to answer Node would load all of its fetch.
  transform: { define: { FormData: 'undefined' } },
  output: {
    dir: 'dist/cli',
    cleanDir: true,
    // Flat: a module that names a file beside it (the thread, main.js) finds it from whatever file it comes to lie in.
    chunkFileNames: '[name]-[hash].js',
    sourcemap: true,
  },
});
