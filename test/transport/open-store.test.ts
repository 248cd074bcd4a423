/** From URL and credentials to a store. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import {
  AccountSASPermissions,
  AccountSASResourceTypes,
  AccountSASServices,
  generateAccountSASQueryParameters,
  StorageSharedKeyCredential,
} from '@azure/storage-blob';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import { type OpenStoreOptions, openStore, type Store } from '../../src/transport/index.ts';
import { type Azurite, startAzurite } from '../support/azurite.ts';
import { type ScriptedServer, startScriptedServer } from '../support/scripted-server.ts';
import { filled } from './contract.ts';

const ACCOUNT = 'devstoreaccount1';
const KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';

function open(url: string, options: Omit<OpenStoreOptions, 'ports'> = {}): Promise<Store> {
  return openStore(url, { ports: nodePorts(), ...options });
}

async function works(store: Store): Promise<void> {
  await store.prepare();
  await store.put('probe', filled(3, 1));
  expect((await store.get('probe', 3))?.bytes).toHaveLength(3);
  await store.delete('probe');
  await store.close();
}

describe('a store URL', () => {
  it.each([
    'nowhere',
    'ftp://a.example/b/c',
    'https://account.blob.core.windows.net/',
    'https://account.blob.core.windows.net/UPPER/x',
    'https://account.blob.core.windows.net/container/pre fix',
    'https://account.blob.core.windows.net/container/a/../../b%2Fc d',
    'https://account.blob.core.windows.net/container?sv=1&se=2',
    'https://user:secret@account.blob.core.windows.net/container',
    'http://account.blob.core.windows.net/container',
    'http://127.0.0.1:10000/',
    'file://host/share/dir?x=1',
    'file:///dir?sig=secret',
    'file:///dir%2Fother',
  ])('that is none is refused with a hint: %s', async (url) => {
    const error = await open(url).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'USAGE', hint: expect.stringMatching(/.+/) });
    expect(String((error as Error).message)).not.toContain('secret');
  });

  it('is shown without its SAS, with its prefix', async () => {
    const store = await open('https://account.blob.core.windows.net/container/a/b?sv=1&sig=secret');
    expect(store.url).toBe('https://account.blob.core.windows.net/container/a/b');
    expect((await open('http://127.0.0.1:10000/devstoreaccount1/container')).url).toBe(
      'http://127.0.0.1:10000/devstoreaccount1/container',
    );
  });

  it('with file: reaches a folder, and a prefix inside it', async () => {
    const root = await mkdtemp(join(tmpdir(), 'blockferry open-'));
    const store = await open(`${pathToFileURL(root).href}/item/`);
    await works(store);
    expect(store.url).toBe(`${pathToFileURL(root).href}/item`);
    await rm(root, { recursive: true });
  });
});

describe('credentials', () => {
  let azurite: Azurite;
  let server: ScriptedServer;

  beforeAll(async () => {
    azurite = await startAzurite();
    server = await startScriptedServer();
    server.otherwise = { status: 200, body: '<EnumerationResults><Blobs/></EnumerationResults>' };
  });
  afterAll(async () => {
    await azurite.stop();
    await server.close();
  });

  function sas(permissions: string, expiresOn = new Date(Date.now() + 3_600_000)): string {
    return generateAccountSASQueryParameters(
      {
        expiresOn,
        permissions: AccountSASPermissions.parse(permissions),
        resourceTypes: AccountSASResourceTypes.parse('sco').toString(),
        services: AccountSASServices.parse('b').toString(),
      },
      new StorageSharedKeyCredential(ACCOUNT, KEY),
    ).toString();
  }

  it('the emulator needs none', async () => {
    await works(await open(`${azurite.account}/open/none`));
  });

  it('a SAS in the URL is used', async () => {
    await works(await open(`${azurite.account}/open/sas?${sas('rwdlc')}`));
  });

  it('a SAS that has expired or does not allow it is an authentication error with a hint', async () => {
    for (const query of [sas('rwdlc', new Date(Date.now() - 60_000)), sas('rl')]) {
      const store = await open(`${azurite.account}/open/sas?${query}`);
      await expect(store.put('a', filled(1, 1))).rejects.toMatchObject({
        code: 'STORE_AUTHENTICATION',
        hint: expect.stringContaining('SAS'),
      });
    }
  });

  it('a connection string is used, with a key, with a SAS, or for the emulator', async () => {
    for (const connectionString of [
      `DefaultEndpointsProtocol=http;AccountName=${ACCOUNT};AccountKey=${KEY};BlobEndpoint=${azurite.account};`,
      `BlobEndpoint=${azurite.account};AccountName=${ACCOUNT};SharedAccessSignature=${sas('rwdlc')}`,
      'UseDevelopmentStorage=true',
    ]) {
      await works(await open(`${azurite.account}/open/string`, { environment: { connectionString } }));
    }
  });

  it('a wrong key is an authentication error', async () => {
    const connectionString = `AccountName=${ACCOUNT};AccountKey=${Buffer.alloc(64, 1).toString('base64')}`;
    const store = await open(`${azurite.account}/open/wrong`, { environment: { connectionString } });
    await expect(store.get('a', 1)).rejects.toMatchObject({ code: 'STORE_AUTHENTICATION' });
  });

  it('a connection string for another account, or without a credential, is refused before anything is sent', async () => {
    for (const connectionString of ['AccountName=other;AccountKey=AAAA', `AccountName=${ACCOUNT}`, 'nonsense']) {
      const opening = open(`${azurite.account}/open/x`, { environment: { connectionString } });
      await expect(opening).rejects.toMatchObject({ code: 'USAGE' });
    }
  });

  it('a token credential is not sent without encryption', async () => {
    const credential = { getToken: async () => ({ token: 'secret-token', expiresOnTimestamp: Date.now() + 1e6 }) };
    const store = await open(`${server.origin}/account/container`, { credential });
    const error = await store.get('a', 1).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(Error);
    expect(server.requests).toHaveLength(0);
  });
});
