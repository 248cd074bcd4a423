/** From the files an operator names to the material that opens a keyring. */
import { BlockferryError } from '../errors.ts';
import { KEY_FILE_BYTES_MAX } from '../limits.ts';
import type { Ports } from '../ports.ts';
import { type KeyMaterial, parseKeyFile } from '../replica/index.ts';
import type { KeySource } from './types.ts';

/** Reads key files, passphrase files and PEM files. @throws KEY_MISSING, KEY_INVALID */
export async function loadKeys(
  sources: readonly KeySource[],
  ports: Pick<Ports, 'files'>,
): Promise<readonly KeyMaterial[]> {
  const materials: KeyMaterial[] = [];
  for (const source of sources) materials.push(await loadKey(source, ports));
  return materials;
}

export async function loadKey({ type, path }: KeySource, { files }: Pick<Ports, 'files'>): Promise<KeyMaterial> {
  const bytes = await readKeyFile(path, files);
  switch (type) {
    case 'key-file':
      return { type, secret: parseKeyFile(bytes, path) };
    case 'passphrase-file':
      return { type: 'passphrase', passphrase: parsePassphrase(bytes, path) };
    case 'certificate':
      return { type, pem: Buffer.from(bytes).toString('latin1') };
  }
}

async function readKeyFile(path: string, files: Ports['files']): Promise<Uint8Array> {
  let bytes: Uint8Array | undefined;
  try {
    bytes = await files.readSmall(path, KEY_FILE_BYTES_MAX);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new BlockferryError('KEY_MISSING', `${path}: cannot be read: ${reason}`, { cause, facts: { source: path } });
  }
  if (bytes) return bytes;
  throw new BlockferryError('KEY_MISSING', `${path}: there is no such file`, {
    facts: { source: path },
    hint: 'name the key file, passphrase file or certificate that the replica was protected with',
  });
}

/** The first line of the file; the rest must be blank, so that a key file is not taken for a passphrase by accident. */
function parsePassphrase(bytes: Uint8Array, path: string): string {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new BlockferryError('KEY_INVALID', `${path}: the passphrase is not UTF-8 text`, {
      cause,
      facts: { source: path },
    });
  }
  const [line = '', ...rest] = text.split(/\r?\n/);
  if (line === '' || rest.some((more) => more.trim() !== '')) {
    throw new BlockferryError('KEY_INVALID', `${path}: a passphrase file holds one line that is not empty`, {
      facts: { source: path },
    });
  }
  return line;
}
