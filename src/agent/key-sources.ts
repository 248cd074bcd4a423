/** From the files an operator names to the material that opens a keyring. */
import { BlockferryError } from '../errors.ts';
import type { Ports } from '../ports.ts';
import { type KeyMaterial, parseKeyFile } from '../replica/index.ts';
import { readSecretFile } from '../secret-file.ts';
import type { KeySource } from './types.ts';

const HINT = 'name the key file, passphrase file or certificate that the replica was protected with';

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
  const bytes = await readSecretFile(path, files, HINT);
  switch (type) {
    case 'key-file':
      return { type, secret: parseKeyFile(bytes, path) };
    case 'passphrase-file':
      return { type: 'passphrase', passphrase: parsePassphrase(bytes, path) };
    case 'certificate':
      return { type, pem: Buffer.from(bytes).toString('latin1') };
  }
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
