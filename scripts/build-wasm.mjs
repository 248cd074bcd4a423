/**
 * Compiles every AssemblyScript source (*.as.ts) to WebAssembly and writes it beside its source as *-code.ts, which is checked in:
 * whoever installs or builds blockferry needs no compiler. A test compiles once more and compares.
 *
 *     node scripts/build-wasm.mjs
 */
import { readFile, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import asc from 'assemblyscript/asc';

const ROOT = new URL('../', import.meta.url);
const SIMD = ['--enable', 'simd'];
/** All of them work in one memory (src/chunker/chunk-memory.ts), where LZ4 has its table at the front. */
const SHARED = ['--importMemory'];
/** Paths without `.as.ts`, with the options that they need. */
export const SOURCES = [
  { path: 'src/chunker/lz4', options: [...SIMD, ...SHARED] },
  { path: 'src/chunker/xxh3', options: [...SIMD, ...SHARED, '--memoryBase', '65536'] },
  { path: 'src/chunker/unlz4', options: [...SIMD, ...SHARED, '--memoryBase', '66560'] },
  { path: 'src/hrl/sum', options: [...SIMD, '--initialMemory', '1'] },
  { path: 'src/chunker/crc64', options: ['--initialMemory', '4'] },
];

/** The TypeScript that holds the module made of a source. */
export async function compile({ path, options }) {
  const name = basename(path);
  const text = await readFile(new URL(`${path}.as.ts`, ROOT), 'utf8');
  let code;
  const { error, stderr } = await asc.main(
    [`${name}.ts`, '--outFile', 'out.wasm', '-O3', '--noAssert', '--runtime', 'stub', ...options],
    {
      readFile: (asked) => (asked === `${name}.ts` ? text : null),
      writeFile: (_name, bytes) => {
        code = bytes;
      },
      listFiles: () => [],
    },
  );
  if (error) throw new Error(stderr.toString(), { cause: error });
  const base64 = Buffer.from(code).toString('base64');
  const constant = `${name.toUpperCase()}_CODE`;
  return `/** The WebAssembly of ${name}.as.ts as base64, made by scripts/build-wasm.mjs. */\nexport const ${constant}: string =\n  '${base64}';\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const source of SOURCES) await writeFile(new URL(`${source.path}-code.ts`, ROOT), await compile(source));
}
