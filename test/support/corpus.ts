/**
 * Disk images made by Windows, Hyper-V, VirtualBox and QEMU, with the hash of what a correct reader returns. They lie
 * beside the checkout (`<repo>/../shared/corpus`), not in it.
 */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync, readFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import type { VirtualDisk } from '../../src/vhd/index.ts';

/** One image of corpus.json. */
export interface CorpusImage {
  readonly file: string;
  readonly what: string;
  readonly rawBytes: number;
  readonly rawSha256: string;
  readonly parent?: string;
  readonly expect: 'read' | 'refuse';
}

const DIRECTORY = resolve(import.meta.dirname, '../../../shared/corpus');

/**
 * The images, or why there are none. Throws in CI, where they must be present: a run that silently tests nothing is worth
 * less than one that fails.
 */
export function corpusImages(): readonly CorpusImage[] | string {
  const index = join(DIRECTORY, 'corpus.json');
  if (existsSync(index)) return JSON.parse(readFileSync(index, 'utf8'));
  const reason = `no disk images at ${DIRECTORY}`;
  if (process.env['CI'] === 'true') throw new Error(reason);
  return reason;
}

/** Unpacks an image and its parents into `directory` under their own names; returns the path of the image. */
export async function unpackImage(
  images: readonly CorpusImage[],
  image: CorpusImage,
  directory: string,
): Promise<string> {
  for (let next: CorpusImage | undefined = image; next !== undefined; ) {
    const path = join(directory, basename(next.file, '.gz'));
    await pipeline(createReadStream(join(DIRECTORY, next.file)), createGunzip(), createWriteStream(path));
    const { parent }: CorpusImage = next;
    next = parent === undefined ? undefined : images.find(({ file }) => file === parent);
  }
  return join(directory, basename(image.file, '.gz'));
}

const ZEROS = Buffer.alloc(4 * 1024 * 1024);

/** The sha256 of a disk's whole content; zero ranges are hashed from one buffer, not read. */
export async function sha256OfDisk(disk: VirtualDisk): Promise<string> {
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(ZEROS.length);
  for await (const extent of disk.extents(0, disk.info.virtualSizeBytes)) {
    if (extent.kind === 'memory') hash.update(extent.bytes);
    else if (extent.kind === 'data') await hashData(hash, disk, extent, buffer);
    else eachPiece(extent.lengthBytes, (lengthBytes) => hash.update(ZEROS.subarray(0, lengthBytes)));
  }
  return hash.digest('hex');
}

async function hashData(
  hash: Hash,
  disk: VirtualDisk,
  extent: { readonly offset: number; readonly lengthBytes: number },
  buffer: Buffer,
): Promise<void> {
  for (let done = 0; done < extent.lengthBytes; done += buffer.length) {
    const piece = buffer.subarray(0, Math.min(buffer.length, extent.lengthBytes - done));
    await disk.read(piece, extent.offset + done);
    hash.update(piece);
  }
}

function eachPiece(lengthBytes: number, use: (lengthBytes: number) => void): void {
  for (let left = lengthBytes; left > 0; left -= ZEROS.length) use(Math.min(left, ZEROS.length));
}
