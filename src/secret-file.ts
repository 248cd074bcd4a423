/** Files that hold what nobody else may know: keys, passphrases, tokens, certificates with their keys. Small, and read whole. */
import { BlockferryError } from './errors.ts';
import { KEY_FILE_BYTES_MAX } from './limits.ts';
import type { FileSystem } from './ports.ts';

/** The content of a file. `hint`: what to do where there is none. @throws KEY_MISSING if it is not there, too long, or not readable */
export async function readSecretFile(path: string, files: FileSystem, hint?: string): Promise<Buffer> {
  const bytes = await files.readSmall(path, KEY_FILE_BYTES_MAX).catch((cause: Error) => {
    throw new BlockferryError('KEY_MISSING', `${path}: cannot be read: ${cause.message}`, {
      cause,
      facts: { source: path },
    });
  });
  if (bytes) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  throw new BlockferryError('KEY_MISSING', `${path}: there is no such file`, {
    facts: { source: path },
    ...(hint === undefined ? {} : { hint }),
  });
}
