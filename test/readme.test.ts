/** The README does what it says: its commands run in their order, its program runs as it stands there. */
import { execFile } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { MIB } from '../src/bytes.ts';
import { nodePorts } from '../src/host/index.ts';
import { createDisk, openDisk } from '../src/vhd/index.ts';
import { inScratch, runCli } from './cli/support.ts';
import { sha256OfDisk } from './support/corpus.ts';
import { patterned } from './tools/fake-disk.ts';

const CHECKOUT = resolve(import.meta.dirname, '..');
const ports = nodePorts();

async function blocksOf(language: string): Promise<readonly string[]> {
  const text = await readFile(join(CHECKOUT, 'README.md'), 'utf8');
  return [...text.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)]
    .filter(([, name]) => name === language)
    .map(([, , body]) => body!);
}

async function makeDisk(path: string): Promise<void> {
  const size = { virtualSizeBytes: 8 * MIB, ports };
  const writer = await createDisk(path, { format: 'vhdx', subformat: 'dynamic', ...size });
  await writer.write(patterned(MIB, 1), 3 * MIB);
  await writer.finish();
}

async function contentOf(path: string): Promise<string> {
  const disk = await openDisk(path, { ports });
  try {
    return await sha256OfDisk(disk);
  } finally {
    await disk.close();
  }
}

test('the commands run one after the other, and the disk comes back', async () => {
  const blocks = (await blocksOf('sh')).filter((block) => block.startsWith('blockferry '));
  const commands = blocks.flatMap((block) => block.trimEnd().split('\n'));
  expect(commands.length).toBeGreaterThan(8);
  await inScratch(async (cwd) => {
    await mkdir(join(cwd, 'keys'));
    await mkdir(join(cwd, 'vms'));
    await makeDisk(join(cwd, 'vms/web1.vhdx'));
    for (const command of commands) {
      expect(command).toMatch(/^blockferry /);
      const [, ...args] = command.replaceAll('/srv/', `${cwd}/`).split(' ');
      const { code, stderr } = await runCli(args, { cwd });
      expect(code, `${command}\n${stderr}`).toBe(0);
    }
    expect(await contentOf(join(cwd, 'restored/web1.vhdx'))).toBe(await contentOf(join(cwd, 'vms/web1.vhdx')));
  });
});

test('the program that uses the library runs, and the disk comes back', async () => {
  const [program = ''] = await blocksOf('js');
  await inScratch(async (cwd) => {
    await makeDisk(join(cwd, 'web1.vhdx'));
    // `blockferry` is found from the checkout; everything the program touches is in the scratch directory.
    const text = `process.chdir(${JSON.stringify(cwd)});\n${program}`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', text], {
      cwd: CHECKOUT,
    });
    expect(stdout).toMatch(/^vhdx 8388608\np\d+ restored.web1\.vhdx\n$/);
    expect(await contentOf(join(cwd, 'restored/web1.vhdx'))).toBe(await contentOf(join(cwd, 'web1.vhdx')));
  });
});
