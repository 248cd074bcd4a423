/**
 * Key files: 32 random bytes as one line of text that survives mail and copy-paste,
 *
 *     blockferry-key-1 q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=
 *
 * The first word names the version of this form; the second is base64 (RFC 4648, padded). There is one spelling of
 * each key: anything but a line end behind it is refused. The file is made for its owner alone (mode 0600) and never
 * over an existing one.
 */
import { BlockferryError } from '../errors.ts';
import type { Ports } from '../ports.ts';

/** Bytes of the secret in a key file. */
export const KEY_FILE_SECRET_BYTES = 32;

const HEADER = 'blockferry-key-1';
const LINE = /^(\S+) ([A-Za-z0-9+/]+={0,2})\r?\n?$/;

/**
 * Makes a key file with a fresh secret.
 * @throws OUTPUT_EXISTS if there is a file of that name, OUTPUT_FAILED if none can be made there
 */
export async function generateKeyFile(path: string, ports: Pick<Ports, 'files' | 'random'>): Promise<void> {
  const line = `${HEADER} ${Buffer.from(ports.random.bytes(KEY_FILE_SECRET_BYTES)).toString('base64')}\n`;
  let created: boolean;
  try {
    created = await ports.files.createExclusive(path, Buffer.from(line, 'latin1'), { ownerOnly: true });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new BlockferryError('OUTPUT_FAILED', `${path}: the key file cannot be made: ${reason}`, {
      cause,
      facts: { source: path },
    });
  }
  if (created) return;
  throw new BlockferryError('OUTPUT_EXISTS', `${path}: already exists and is not overwritten`, {
    facts: { source: path },
    hint: 'a lost key cannot be made again: name another file',
  });
}

/** The secret in the bytes of a key file; `source` is its path, for messages. @throws KEY_INVALID */
export function parseKeyFile(bytes: Uint8Array, source: string): Uint8Array {
  const match = LINE.exec(Buffer.from(bytes).toString('latin1'));
  if (match?.[1] !== HEADER) throw invalid(source, `the file is one line that begins with "${HEADER} "`);
  const text = match[2] ?? '';
  const secret = Buffer.from(text, 'base64');
  if (secret.byteLength !== KEY_FILE_SECRET_BYTES) {
    throw invalid(source, `the key has ${KEY_FILE_SECRET_BYTES} bytes, not ${secret.byteLength}`);
  }
  if (secret.toString('base64') !== text) throw invalid(source, 'the key is in canonical base64');
  return secret;
}

function invalid(source: string, rule: string): BlockferryError {
  return new BlockferryError('KEY_INVALID', `${source}: not a key file: broken rule: ${rule}`, {
    facts: { source, offset: 0, rule },
    hint: 'make one with "blockferry keygen"; a passphrase goes into --passphrase-file',
  });
}
