/**
 * Who may use a gateway, and for what. A client is known by its token, which is compared in constant time; of the tokens only their
 * hashes stay in memory. It may use the places that the configuration names, and what lies below them.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { BlockferryError } from '../errors.ts';
import type { FileSystem } from '../ports.ts';
import { readSecretFile } from '../secret-file.ts';
import type { GatewayClientConfig } from './types.ts';

/** 128 bits in hexadecimal; shorter ones can be guessed. */
const TOKEN_CHARACTERS_MIN = 32;
const TOKEN = /^[\x21-\x7e]+$/;
const BEARER = /^Bearer ([\x21-\x7e]{1,4096})$/;

export interface GatewayClient {
  readonly name: string;
  /** `STORE/PREFIX` each. */
  readonly may: readonly string[];
}

interface Known {
  readonly client: GatewayClient;
  readonly hash: Uint8Array;
}

export class Clients {
  readonly #known: readonly Known[];

  private constructor(known: readonly Known[]) {
    this.#known = known;
  }

  /** Reads the tokens. @throws KEY_MISSING, KEY_INVALID */
  static async load(configs: readonly GatewayClientConfig[], files: FileSystem): Promise<Clients> {
    const known: Known[] = [];
    for (const { name, tokenFile, may } of configs) {
      const hash = hashOf(await readToken(name, tokenFile, files));
      const same = known.find((other) => timingSafeEqual(other.hash, hash));
      if (same) throw invalid(tokenFile, `clients "${same.client.name}" and "${name}" have the same token`);
      known.push({ client: { name, may }, hash });
    }
    return new Clients(known);
  }

  /** The client of an `authorization` header. @throws STORE_AUTHENTICATION */
  authenticate(header: string | undefined): GatewayClient {
    const hash = hashOf(BEARER.exec(header ?? '')?.[1] ?? '');
    let found: GatewayClient | undefined;
    // All of them, so that the time says nothing about which one it was.
    for (const { client, hash: known } of this.#known) if (timingSafeEqual(known, hash)) found = client;
    if (found) return found;
    throw new BlockferryError('STORE_AUTHENTICATION', 'the gateway does not know this token', {
      facts: { status: 401 },
      hint: 'the token file of this machine holds another token than the one that the gateway has for it',
    });
  }
}

/** @throws STORE_AUTHENTICATION unless the client may use the place */
export function assertMay({ name, may }: GatewayClient, place: string): void {
  if (may.some((allowed) => place === allowed || place.startsWith(`${allowed}/`))) return;
  throw new BlockferryError('STORE_AUTHENTICATION', `client "${name}" may not use ${place} of the gateway`, {
    facts: { status: 403, client: name, place },
    hint: 'add the place to "may" of the client in the configuration of the gateway',
  });
}

async function readToken(name: string, path: string, files: FileSystem): Promise<string> {
  const hint = `make the token of client "${name}", for example with: openssl rand -hex 32`;
  const token = (await readSecretFile(path, files, hint)).toString('utf8').trim();
  if (TOKEN.test(token) && token.length >= TOKEN_CHARACTERS_MIN) return token;
  throw invalid(path, `a token has at least ${TOKEN_CHARACTERS_MIN} printable characters without blanks`);
}

function invalid(source: string, rule: string): BlockferryError {
  return new BlockferryError('KEY_INVALID', `${source}: ${rule}`, { facts: { source, rule } });
}

function hashOf(token: string): Uint8Array {
  return createHash('sha256').update(token).digest();
}
