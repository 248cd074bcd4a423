/**
 * From a URL to a store. This is the only place that knows the kinds of URL; credentials come in as options,
 * never from the environment.
 */
import type { TokenCredential } from '@azure/identity';
import type { Ports } from '../ports.ts';
import { FolderStore } from './folder-store.ts';
import type { Store } from './store.ts';
import { folderOf, URL_FORMS, usage } from './store-url.ts';
import type { TransportChecksum } from './transport-checksum.ts';

/** What the caller found in its environment; the library looks at none. */
export interface StoreEnvironment {
  /** An account's connection string (with a key or a SAS); used where the URL carries no SAS. */
  readonly connectionString?: string;
  /** What lets us in at a gateway: paths of files. They are read at each opening, so a token may be exchanged. */
  readonly gateway?: { readonly tokenFile: string; readonly caFile?: string };
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
  /** Default `crc64`, of the emulator's account `md5`. */
  readonly transportChecksum?: TransportChecksum;
}

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
  if (parsed.protocol === 'file:') return new FolderStore({ directory: folderOf(parsed), ports: options.ports });
  if (parsed.protocol.startsWith('gateway+')) {
    const { openGateway } = await import('./open-gateway.ts');
    return await openGateway(parsed, options);
  }
  if (parsed.protocol === 'https:' || parsed.protocol === 'http:') {
    const { openAzure } = await import('./open-azure.ts');
    return await openAzure(parsed, options);
  }
  throw usage(`a store is not reached by ${parsed.protocol}`, URL_FORMS);
}
