/** The WebAssembly that is checked in is what the compiler makes of the sources beside it. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { compile, SOURCES } from '../scripts/build-wasm.mjs';

it.each(SOURCES)('$path-code.ts is made of $path.as.ts', async (source) => {
  const code = readFileSync(new URL(`../${source.path}-code.ts`, import.meta.url), 'utf8');
  expect(code).toBe(await compile(source));
});
