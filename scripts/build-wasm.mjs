/**
 * Compiles src/chunker/lz4.as.ts to WebAssembly and writes it as src/chunker/lz4-code.ts, which is checked in: whoever
 * installs or builds blockferry needs no compiler. A test compiles once more and compares.
 *
 *     node scripts/build-wasm.mjs
 */
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import asc from 'assemblyscript/asc';

const source = fileURLToPath(new URL('../src/chunker/lz4.as.ts', import.meta.url));
const target = fileURLToPath(new URL('../src/chunker/lz4-code.ts', import.meta.url));

/** The module that `lz4-code.ts` has to be. */
export async function compileLz4() {
  const text = await readFile(source, 'utf8');
  let code;
  const { error, stderr } = await asc.main(
    [
      'lz4.ts',
      '--outFile',
      'lz4.wasm',
      '-O3',
      '--noAssert',
      '--runtime',
      'stub',
      '--enable',
      'simd',
      '--initialMemory',
      '4',
    ],
    {
      readFile: (name) => (name === 'lz4.ts' ? text : null),
      writeFile: (_name, bytes) => {
        code = bytes;
      },
      listFiles: () => [],
    },
  );
  if (error) throw new Error(stderr.toString(), { cause: error });
  const base64 = Buffer.from(code).toString('base64');
  return `/** The WebAssembly of lz4.as.ts as base64, made by scripts/build-wasm.mjs. */\nexport const LZ4_CODE: string =\n  '${base64}';\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await writeFile(target, await compileLz4());
