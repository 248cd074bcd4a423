/**
 * A store in Azure: its credential, its client, its limits. It brings the SDK along, which takes longer to load than all of
 * blockferry; so this module is loaded when a URL asks for it.
 */
import type { TokenCredential } from '@azure/identity';
import { AnonymousCredential, ContainerClient, StorageSharedKeyCredential } from '@azure/storage-blob';
import type { AzureSettings } from './azure-attempt.ts';
import { AzureStore } from './azure-store.ts';
import { AzureWire } from './azure-wire.ts';
import { Deadlines } from './deadlines.ts';
import type { OpenStoreOptions } from './open-store.ts';
import type { Store } from './store.ts';
import { addressOf, EMULATOR_ACCOUNT, usage } from './store-url.ts';

/** Waiting time for the answer to one request, without the time for its body. */
const ATTEMPT_TIMEOUT_MS = 30_000;

/** The key of that account, documented by its makers and the same everywhere: no secret. */
const EMULATOR_KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';

type Credential = AnonymousCredential | StorageSharedKeyCredential | TokenCredential;

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

/** The store in Azure behind `url`. @throws USAGE if the URL or the credentials cannot be those of a container */
export async function openAzure(url: URL, options: OpenStoreOptions): Promise<Store> {
  const address = addressOf(url);
  const { credential, sas } = await credentialFor(url, address.account, options);
  const target = `${address.endpoint}/${address.container}`;
  const container = new ContainerClient(sas === '' ? target : `${target}?${sas}`, credential, {
    // There is one retry policy, ours; the SDK's knows neither jitter nor Retry-After nor 429.
    retryOptions: { maxTries: 1 },
    userAgentOptions: { userAgentPrefix: 'blockferry' },
  });
  const signing = credential instanceof AnonymousCredential ? 'anonymous' : credential;
  const settings: AzureSettings = {
    deadlines: new Deadlines(options.ports.clock),
    timeoutMs: options.attemptTimeoutMs ?? ATTEMPT_TIMEOUT_MS,
    transportChecksum: options.transportChecksum ?? (address.account === EMULATOR_ACCOUNT ? 'md5' : 'crc64'),
    wire: new AzureWire(signing, options.ports.clock),
  };
  const shown = address.prefix === '' ? target : `${target}/${address.prefix}`;
  return new AzureStore({ container, prefix: address.prefix, url: shown, settings, random: options.ports.random });
}
