/**
 * Wrapping the master key of a replica: by a key file, a passphrase or an X.509 certificate.
 *
 * Each wrapping is a slot of the keyring. A slot can be opened on its own, but the keyring's MAC decides whether it
 * belongs there (AES-GCM does not commit to its key, and a store may graft slots).
 */
import {
  constants,
  createHash,
  createPrivateKey,
  createPublicKey,
  hkdfSync,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
  scrypt,
  X509Certificate,
} from 'node:crypto';
import { promisify } from 'node:util';
import { NONCE_BYTES, XaesKey } from '../chunker/index.ts';
import { BlockferryError } from '../errors.ts';
import { SCRYPT_MEMORY_BYTES_MAX } from '../limits.ts';
import type { Random } from '../ports.ts';
import type { JsonReader } from './json.ts';

export const MASTER_KEY_BYTES = 32;
const WRAPPED_BYTES = NONCE_BYTES + MASTER_KEY_BYTES + 16;
const SALT_BYTES = 32;
/** 375 ms and 128 MiB on a server of 2024: dear for a guesser, bearable at a failover. */
const SCRYPT = { N: 2 ** 17, r: 8, p: 1 } as const;

const scryptAsync = promisify<Buffer, Uint8Array, number, object, Buffer>(scrypt as never);

/** Key material that opens or makes a slot. */
export type KeyMaterial =
  | { readonly type: 'key-file'; readonly secret: Uint8Array }
  | { readonly type: 'passphrase'; readonly passphrase: string }
  /** PEM text with a certificate; opening also needs its private key in the same text. */
  | { readonly type: 'certificate'; readonly pem: string };

export type KeySlot =
  | { readonly id: string; readonly type: 'key-file'; readonly wrapped: Uint8Array }
  | { readonly id: string; readonly type: 'passphrase'; readonly salt: Uint8Array; readonly wrapped: Uint8Array }
  | {
      readonly id: string;
      readonly type: 'certificate';
      readonly thumbprint: Uint8Array;
      readonly wrapped: Uint8Array;
    };

/** A new slot with `master` wrapped by `material`. @throws KEY_INVALID if the material cannot be used. */
export async function wrapMaster(
  master: Uint8Array,
  material: KeyMaterial,
  id: string,
  random: Random,
): Promise<KeySlot> {
  switch (material.type) {
    case 'key-file': {
      const wrapped = seal(fileKey(material.secret), master, id, random);
      return { id, type: 'key-file', wrapped };
    }
    case 'passphrase': {
      const salt = random.bytes(SALT_BYTES);
      const wrapped = seal(await passphraseKey(material.passphrase, salt), master, id, random);
      return { id, type: 'passphrase', salt, wrapped };
    }
    case 'certificate': {
      const certificate = parseCertificate(material.pem);
      const key = { key: certificate.publicKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
      return { id, type: 'certificate', thumbprint: thumbprint(certificate), wrapped: publicEncrypt(key, master) };
    }
  }
}

/** The master key of a slot, or undefined if `material` does not open it. */
export async function unwrapMaster(slot: KeySlot, material: KeyMaterial): Promise<Uint8Array | undefined> {
  if (slot.type === 'key-file' && material.type === 'key-file') {
    return open(fileKey(material.secret), slot.wrapped, slot.id);
  }
  if (slot.type === 'passphrase' && material.type === 'passphrase') {
    return open(await passphraseKey(material.passphrase, slot.salt), slot.wrapped, slot.id);
  }
  if (slot.type === 'certificate' && material.type === 'certificate') {
    const key = { key: parsePrivateKey(material.pem), padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
    try {
      const master = privateDecrypt(key, slot.wrapped);
      return master.byteLength === MASTER_KEY_BYTES ? master : undefined;
    } catch {
      return undefined;
    }
  }
  return undefined;
}

export function encodeSlot(slot: KeySlot): Record<string, string> {
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
  const { id, type } = slot;
  const wrapped = base64(slot.wrapped);
  switch (slot.type) {
    case 'key-file':
      return { id, type, wrapped };
    case 'passphrase':
      return { id, type, salt: base64(slot.salt), wrapped };
    case 'certificate':
      return { id, type, thumbprint: Buffer.from(slot.thumbprint).toString('hex'), wrapped };
  }
}

export function decodeSlot(json: JsonReader): KeySlot {
  const id = json.field('id').string(64);
  const type = json.field('type').oneOf(['key-file', 'passphrase', 'certificate']);
  const wrapped = json.field('wrapped').base64(2048);
  if (type !== 'certificate' && wrapped.byteLength !== WRAPPED_BYTES) json.fail(`wrapped has ${WRAPPED_BYTES} bytes`);
  switch (type) {
    case 'key-file':
      return { id, type, wrapped };
    case 'passphrase': {
      const salt = json.field('salt').base64(SALT_BYTES);
      return salt.byteLength === SALT_BYTES ? { id, type, salt, wrapped } : json.fail(`salt has ${SALT_BYTES} bytes`);
    }
    case 'certificate':
      return { id, type, thumbprint: json.field('thumbprint').hex(32), wrapped };
  }
}

function fileKey(secret: Uint8Array): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secret, new Uint8Array(0), 'blockferry/key-file/1', 32));
}

function passphraseKey(passphrase: string, salt: Uint8Array): Promise<Uint8Array> {
  // NFKC, so that one passphrase typed on two systems is one sequence of bytes.
  const bytes = Buffer.from(passphrase.normalize('NFKC'), 'utf8');
  return scryptAsync(bytes, salt, 32, { ...SCRYPT, maxmem: SCRYPT_MEMORY_BYTES_MAX });
}

/** The slot's id is authenticated: two slots cannot trade their contents. */
const aad = (id: string): Uint8Array => Buffer.from(`blockferry/key-slot/1/${id}`);

function seal(key: Uint8Array, master: Uint8Array, id: string, random: Random): Uint8Array {
  const nonce = random.bytes(NONCE_BYTES);
  return Buffer.concat([nonce, new XaesKey(key).seal(nonce, aad(id), master)]);
}

function open(key: Uint8Array, wrapped: Uint8Array, id: string): Uint8Array | undefined {
  return new XaesKey(key).open(wrapped.subarray(0, NONCE_BYTES), aad(id), wrapped.subarray(NONCE_BYTES));
}

function thumbprint(certificate: X509Certificate): Uint8Array {
  return createHash('sha256').update(certificate.raw).digest();
}

function parseCertificate(pem: string): X509Certificate {
  try {
    const certificate = new X509Certificate(pem);
    checkRsa(certificate.publicKey);
    return certificate;
  } catch (cause) {
    if (cause instanceof BlockferryError) throw cause;
    throw new BlockferryError('KEY_INVALID', 'the certificate file holds no readable X.509 certificate', {
      cause,
      hint: 'give a PEM file that contains BEGIN CERTIFICATE',
    });
  }
}

function parsePrivateKey(pem: string): KeyObject {
  try {
    const key = createPrivateKey(pem);
    checkRsa(createPublicKey(key));
    return key;
  } catch (cause) {
    if (cause instanceof BlockferryError) throw cause;
    throw new BlockferryError('KEY_INVALID', 'the certificate file holds no readable private key', {
      cause,
      hint: 'opening a replica needs the private key as well: put BEGIN PRIVATE KEY into the same PEM file',
    });
  }
}

function checkRsa(key: KeyObject): void {
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0;
  if (key.asymmetricKeyType !== 'rsa' || bits < 2048) {
    throw new BlockferryError('KEY_INVALID', `the certificate has a ${bits}-bit ${key.asymmetricKeyType} key`, {
      facts: { type: key.asymmetricKeyType ?? 'unknown', bits },
      hint: 'use an RSA certificate of at least 2048 bits',
    });
  }
}
