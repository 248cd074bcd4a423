/**
 * From a URL to a store. This is the only place that knows the three kinds of URL; credentials come in as options,
 * never from the environment.
 */
import { isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TokenCredential } from '@azure/identity';
import { AnonymousCredential, ContainerClient, StorageSharedKeyCredential } from '@azure/storage-blob';
import { BlockferryError } from '../errors.ts';
import type { Ports } from '../ports.ts';
import type { AzureSettings } from './azure-attempt.ts';
import { AzureStore } from './azure-store.ts';
import { FolderStore } from './folder-store.ts';
import type { Store } from './store.ts';

/** Waiting time for the answer to one request, without the time for its body. */
const ATTEMPT_TIMEOUT_MS = 30_000;

/** The emulator's account, documented by its makers and the same everywhere: no secret. */
const EMULATOR_ACCOUNT = 'devstoreaccount1';
const EMULATOR_KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';

/** What the caller found in its environment; the library looks at none. */
export interface StoreEnvironment {
  /** An account's connection string (with a key or a SAS); used where the URL carries no SAS. */
  readonly connectionString?: string;
}

/** The ports that a store needs. */
export type StorePorts = Pick<Ports, 'clock' | 'random' | 'files' | 'failpoint'>;

/** How `openStore` reaches a store. */
export interface OpenStoreOptions {
  readonly ports: StorePorts;
  readonly environment?: StoreEnvironment;
  /** Any credential for Azure tokens. Without it DefaultAzureCredential, loaded when it is needed. */
  readonly credential?: TokenCredential;
  readonly attemptTimeoutMs?: number;
  readonly transportChecksum?: 'md5' | 'none';
}

type Credential = AnonymousCredential | StorageSharedKeyCredential | TokenCredential;

function usage(message: string, hint: string): BlockferryError {
  return new BlockferryError('USAGE', message, { hint });
}

const URL_FORMS =
  'write https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX, http://127.0.0.1:10000/devstoreaccount1/CONTAINER/PREFIX or file:///DIR';

/**
 * The store behind `url`; nothing is read or written yet.
 *
 * @example
 * const store = await openStore('file:///srv/replicas/web1', { ports: nodePorts() });
 * await store.prepare();
 *
 * @throws USAGE if the URL is none of a store.
 */
export async function openStore(url: string, options: OpenStoreOptions): Promise<Store> {
  // The error of the URL constructor repeats its input, and that may hold a SAS.
  if (!URL.canParse(url)) throw usage('the URL of the store cannot be parsed', URL_FORMS);
  const parsed = new URL(url);
  if (parsed.protocol === 'file:') return openFolder(parsed, options.ports);
  if (parsed.protocol === 'https:' || parsed.protocol === 'http:') return await openAzure(parsed, options);
  throw usage(`a store is not reached by ${parsed.protocol}`, URL_FORMS);
}

function openFolder(url: URL, ports: StorePorts): Store {
  if (url.search !== '' || url.hash !== '') throw usage('the URL of a folder ends with its path', URL_FORMS);
  let path: string;
  try {
    path = fileURLToPath(url);
  } catch {
    throw usage(`${url.href} is no path on this machine`, 'write file:///DIR, with three slashes and an absolute path');
  }
  if (!isAbsolute(path) || path.includes('\0')) throw usage(`${url.href} is no absolute path`, URL_FORMS);
  return new FolderStore({ directory: join(path, '.'), ports });
}

/** Where in which account. */
interface AzureAddress {
  /** Of the account, without query. */
  readonly endpoint: string;
  readonly account: string;
  readonly container: string;
  readonly prefix: string;
}

const CONTAINER = /^(?:\$root|\$web|[a-z0-9](?:-?[a-z0-9]){2,62})$/;
/** What a URL writes without escapes; `.` and `..` are gone before (the URL parser resolves them). */
const PREFIX_SEGMENT = /^[A-Za-z0-9._~-]+$/;
const IP_OR_LOCAL = /^(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:]+\])$/i;

/** Splits the URL; emulators and private endpoints by IP name the account in the path. */
function addressOf(url: URL): AzureAddress {
  const segments = url.pathname.split('/').filter((segment) => segment !== '');
  const byPath = IP_OR_LOCAL.test(url.hostname) || segments[0] === EMULATOR_ACCOUNT;
  const account = byPath ? segments.shift() : url.hostname.split('.')[0];
  const container = segments.shift();
  const prefix = segments.join('/');
  const shown = `${url.origin}${url.pathname}`;
  if (account === undefined || container === undefined) throw usage(`${shown} names no container`, URL_FORMS);
  if (!CONTAINER.test(container)) {
    throw usage(`"${container}" is no container name`, 'container names have 3 to 63 of a-z, 0-9 and single hyphens');
  }
  if (!segments.every((segment) => PREFIX_SEGMENT.test(segment))) {
    throw usage(`"${prefix}" cannot be a prefix`, 'prefixes have letters, digits and . _ ~ - with slashes between');
  }
  return { endpoint: byPath ? `${url.origin}/${account}` : url.origin, account, container, prefix };
}

/** The parts of `A=1;B=2`; values may hold `=`. */
function connectionParts(text: string): Map<string, string> {
  const parts = new Map<string, string>();
  for (const part of text.split(';')) {
    const at = part.indexOf('=');
    if (at > 0) parts.set(part.slice(0, at).trim().toLowerCase(), part.slice(at + 1).trim());
  }
  return parts;
}

/** Key or SAS of a connection string, if it is one for this account. */
function fromConnectionString(text: string, account: string): { credential: Credential; sas: string } {
  const parts = connectionParts(text);
  if (parts.get('usedevelopmentstorage') === 'true') {
    return { credential: new StorageSharedKeyCredential(EMULATOR_ACCOUNT, EMULATOR_KEY), sas: '' };
  }
  const name = parts.get('accountname') ?? new URL(parts.get('blobendpoint') ?? 'none:').hostname.split('.')[0] ?? '';
  const key = parts.get('accountkey');
  const sas = parts.get('sharedaccesssignature');
  if (name !== '' && name !== account) {
    throw usage(
      `the connection string is for account "${name}", the URL for "${account}"`,
      'set AZURE_STORAGE_CONNECTION_STRING to the string of the account in the URL, or unset it',
    );
  }
  if (key !== undefined) return { credential: new StorageSharedKeyCredential(account, key), sas: '' };
  if (sas !== undefined) return { credential: new AnonymousCredential(), sas: sas.replace(/^\?/, '') };
  throw usage(
    'the connection string holds neither AccountKey nor SharedAccessSignature',
    'copy it whole from "Access keys" or "Shared access signature" of the storage account',
  );
}

async function credentialFor(
  url: URL,
  account: string,
  options: OpenStoreOptions,
): Promise<{ credential: Credential; sas: string }> {
  if (url.searchParams.has('sig')) return { credential: new AnonymousCredential(), sas: url.search.slice(1) };
  const connectionString = options.environment?.connectionString;
  if (connectionString !== undefined) return fromConnectionString(connectionString, account);
  if (account === EMULATOR_ACCOUNT) {
    return { credential: new StorageSharedKeyCredential(EMULATOR_ACCOUNT, EMULATOR_KEY), sas: '' };
  }
  if (options.credential) return { credential: options.credential, sas: '' };
  const { DefaultAzureCredential } = await import('@azure/identity');
  return { credential: new DefaultAzureCredential(), sas: '' };
}

async function openAzure(url: URL, options: OpenStoreOptions): Promise<Store> {
  if (url.username !== '' || url.password !== '') throw usage('a store URL carries no user name', URL_FORMS);
  if (url.search !== '' && !url.searchParams.has('sig')) {
    throw usage('the query of the URL is no SAS: it has no "sig"', 'put the URL in quotes: a shell cuts it at &');
  }
  const address = addressOf(url);
  if (url.protocol === 'http:' && address.account !== EMULATOR_ACCOUNT && !IP_OR_LOCAL.test(url.hostname)) {
    throw usage(`${url.origin} would be reached without encryption`, 'write https://');
  }
  const { credential, sas } = await credentialFor(url, address.account, options);
  const target = `${address.endpoint}/${address.container}`;
  const container = new ContainerClient(sas === '' ? target : `${target}?${sas}`, credential, {
    // There is one retry policy, ours; the SDK's knows neither jitter nor Retry-After nor 429.
    retryOptions: { maxTries: 1 },
    userAgentOptions: { userAgentPrefix: 'blockferry' },
  });
  const settings: AzureSettings = {
    clock: options.ports.clock,
    timeoutMs: options.attemptTimeoutMs ?? ATTEMPT_TIMEOUT_MS,
    transportChecksum: options.transportChecksum ?? 'md5',
  };
  const shown = address.prefix === '' ? target : `${target}/${address.prefix}`;
  return new AzureStore({ container, prefix: address.prefix, url: shown, settings, random: options.ports.random });
}
