/**
 * The disks that the bench works on. They are made once and kept in a directory of their own; each says how it was made, and that
 * stands in every record of a run that read it. `warm` reads a file, so that all contestants find it in the page cache.
 */
import { createHash, randomFillSync } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import {
  type FileHandle,
  mkdir,
  mkdtemp,
  open,
  readdir,
  rename,
  rm,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { basename, join } from 'node:path';
import { GIB, KIB, type Lab, MIB } from './lab.ts';
import { run } from './measure.ts';
import { needTool } from './tools.ts';

export interface Input {
  readonly path: string;
  readonly sizeBytes: number;
  /** How it was made. */
  readonly recipe: string;
}

/** The share of a file system that is filled: it needs some room for itself, a small one more. */
const FILLED = 0.75;
const BLOCK_BYTES = 4 * KIB;
/** The allocation unit of the dynamic disks that Hyper-V makes. */
export const BLOCK_OF_HYPERV_BYTES: number = 32 * MIB;
/** One file at most for so many bytes: directories need room too. */
const BYTES_PER_FILE = 32 * KIB;
/** Where installed files are, of which each gives a third. */
const SOURCES = ['/usr/bin', '/usr/lib', '/usr/share'];

/** Makes `name` unless it is there; a run that was interrupted leaves nothing under the name. */
async function made(lab: Lab, name: string, make: (path: string) => Promise<void>): Promise<string> {
  const path = join(lab.inputs, name);
  if (!existsSync(path)) {
    const scratch = await mkdtemp(join(lab.inputs, 'making-'));
    try {
      await make(join(scratch, name));
      await rename(join(scratch, name), path);
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  }
  await warm(path);
  return path;
}

/** Reads a file to its end, holes apart: those of a sparse file of terabytes are not worth the time. */
export async function warm(path: string): Promise<void> {
  const { size, blocks } = await stat(path);
  if (size > 2 * blocks * 512) return;
  for await (const _ of createReadStream(path, { highWaterMark: MIB }));
}

function sizeName(bytes: number): string {
  return bytes >= 1024 * GIB ? `${bytes / 1024 / GIB}TiB` : bytes >= GIB ? `${bytes / GIB}GiB` : `${bytes / MIB}MiB`;
}

/** An ext4 file system with files that are installed here: programs, libraries, documents. */
export async function realContent(lab: Lab, sizeBytes: number): Promise<Input> {
  const path = await made(lab, `content-${sizeName(sizeBytes)}.raw`, async (file) => {
    const [list, tree] = [`${file}.list`, `${file}.tree`];
    await writeFile(list, (await installedFiles(sizeBytes * FILLED)).join('\0'));
    await mkdir(tree);
    await run(['sh', '-c', 'tar -C / --null -T "$1" -cf - | tar -C "$2" -xf -', 'sh', list, tree]);
    await writeFile(file, '');
    await truncate(file, sizeBytes);
    const uuid = '00000000-0000-4000-8000-000000000000';
    await run([
      needTool('mkfs.ext4'),
      '-q',
      '-F',
      '-b',
      '4096',
      '-m',
      '0',
      '-U',
      uuid,
      '-E',
      `hash_seed=${uuid}`,
      '-d',
      tree,
      file,
    ]);
  });
  const recipe = `ext4 of ${sizeName(sizeBytes)}, 75 % filled with files of ${SOURCES.join(', ')}`;
  return { path, sizeBytes, recipe };
}

/** Regular files below the sources, in the order of their names, a third of the bytes from each. */
async function installedFiles(bytes: number): Promise<string[]> {
  const files: string[] = [];
  const filesMax = bytes / BYTES_PER_FILE / SOURCES.length;
  for (const source of SOURCES) {
    let left = bytes / SOURCES.length;
    const entries = await readdir(source, { recursive: true, withFileTypes: true });
    const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
    for (const path of paths.sort().slice(0, filesMax)) {
      const blocksBytes = Math.ceil((await stat(path)).size / BLOCK_BYTES) * BLOCK_BYTES;
      if (blocksBytes > left) continue;
      left -= blocksBytes;
      files.push(path.slice(1));
    }
  }
  return files;
}

/** The content of `from` several times over. */
export async function repeated(lab: Lab, from: Input, times: number): Promise<Input> {
  const sizeBytes = times * from.sizeBytes;
  const path = await made(lab, `repeated-${sizeName(sizeBytes)}.raw`, async (file) => {
    await run(['sh', '-c', `for _ in $(seq ${times}); do cat "$1"; done > "$2"`, 'sh', from.path, file]);
  });
  return { path, sizeBytes, recipe: `${from.recipe}, ${times} times` };
}

/** Bytes that no compressor makes smaller; the same ones each time. */
export async function incompressible(lab: Lab, sizeBytes: number): Promise<Input> {
  const path = await made(lab, `random-${sizeName(sizeBytes)}.raw`, (path) =>
    writing(path, async (file) => {
      const piece = Buffer.alloc(MIB);
      for (let at = 0; at < sizeBytes; at += MIB) {
        randomFillSync(piece);
        await file.write(piece, 0, MIB, at);
      }
    }),
  );
  return { path, sizeBytes, recipe: `${sizeName(sizeBytes)} of random bytes` };
}

/** Writes the content of a raw file as a dynamic VHDX with blocks as Hyper-V makes them. */
export async function toVhdx(raw: string, vhdx: string): Promise<void> {
  const options = ['-O', 'vhdx', '-o', `block_size=${BLOCK_OF_HYPERV_BYTES}`];
  await run([needTool('qemu-img'), 'convert', '-q', '-f', 'raw', ...options, raw, vhdx]);
}

async function toFixedVhd(raw: string, vhd: string): Promise<void> {
  const options = ['-O', 'vpc', '-o', 'subformat=fixed,force_size=on'];
  await run([needTool('qemu-img'), 'convert', '-q', '-f', 'raw', ...options, raw, vhd]);
}

/** The content of a raw input as another kind of disk. */
export async function converted(lab: Lab, from: Input, format: 'vhdx' | 'fixed vhd'): Promise<Input> {
  const [ending, convert] = format === 'vhdx' ? (['vhdx', toVhdx] as const) : (['vhd', toFixedVhd] as const);
  const path = await made(lab, `${basename(from.path)}.${ending}`, (file) => convert(from.path, file));
  return { path, sizeBytes: from.sizeBytes, recipe: `${from.recipe}, as ${format}` };
}

/** A dynamic VHDX that holds nothing. */
export async function emptyVhdx(lab: Lab, sizeBytes: number): Promise<Input> {
  const path = await made(lab, `empty-${sizeName(sizeBytes)}.vhdx`, async (file) => {
    await run([needTool('qemu-img'), 'create', '-q', '-f', 'vhdx', file, String(sizeBytes)]);
  });
  return { path, sizeBytes, recipe: `empty dynamic VHDX of ${sizeName(sizeBytes)}` };
}

/** The content of `from` in pieces of a block of Hyper-V, spread evenly over a much larger raw file. */
export async function spread(lab: Lab, from: Input, sizeBytes: number): Promise<Input> {
  const pieces = from.sizeBytes / BLOCK_OF_HYPERV_BYTES;
  const name = `spread-${sizeName(from.sizeBytes)}-over-${sizeName(sizeBytes)}.raw`;
  const path = await made(lab, name, (path) =>
    writing(path, async (file) => {
      await file.truncate(sizeBytes);
      const source = await open(from.path);
      const piece = Buffer.alloc(BLOCK_OF_HYPERV_BYTES);
      for (let i = 0; i < pieces; i += 1) {
        await source.read(piece, 0, piece.byteLength, i * piece.byteLength);
        await file.write(piece, 0, piece.byteLength, i * (sizeBytes / pieces));
      }
      await source.close();
    }),
  );
  return { path, sizeBytes, recipe: `${from.recipe}, in ${pieces} pieces over ${sizeName(sizeBytes)}` };
}

/** Where a share of the 4 KiB blocks of a disk lie that are written anew: anywhere, none twice, the same each time. */
export function scatteredBlocks(sizeBytes: number, share: number): readonly number[] {
  const blocks = sizeBytes / BLOCK_BYTES;
  const wanted = Math.round(blocks * share);
  const chosen = new Set<number>();
  for (let i = 0; chosen.size < wanted; i += 1) {
    chosen.add(createHash('md5').update(`block ${i}`).digest().readUInt32BE(0) % blocks);
  }
  return [...chosen].sort((a, b) => a - b).map((block) => block * BLOCK_BYTES);
}

/** Writes new random bytes over blocks of 4 KiB. */
export async function overwrite(path: string, offsets: readonly number[]): Promise<void> {
  const file = await open(path, 'r+');
  const block = Buffer.alloc(BLOCK_BYTES);
  for (const offset of offsets) await file.write(randomFillSync(block), 0, block.byteLength, offset);
  await file.close();
}

async function writing(path: string, body: (file: FileHandle) => Promise<void>): Promise<void> {
  const file = await open(path, 'wx');
  try {
    await body(file);
  } finally {
    await file.close();
  }
}
