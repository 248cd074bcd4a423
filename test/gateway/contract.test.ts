/** The store contract through a gateway: over a folder, with every root put early, and over the emulator. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Store } from '../../src/transport/index.ts';
import { startAzurite } from '../support/azurite.ts';
import { type ContractPlace, contractSuite } from '../transport/contract.ts';
import { GatewayLab } from './support.ts';

async function through(url: string, onClose: () => Promise<void>): Promise<ContractPlace> {
  const lab = await GatewayLab.start({ url });
  let places = 0;
  const open = (): Promise<Store> => lab.open(`main/p${places}/q`);
  return {
    open: () => {
      places += 1;
      return open();
    },
    reopen: open,
    close: async () => {
      await lab.close();
      await onClose();
    },
  };
}

/** Whatever may be put early is. */
function early(store: Store): Store {
  return new Proxy(store, {
    get(target, name) {
      if (name === 'put') {
        const put: Store['put'] = (key, bytes, options) => target.put(key, bytes, { ...options, early: true });
        return put;
      }
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

function folder(): { readonly url: string; readonly remove: () => Promise<void> } {
  const root = mkdtempSync(join(tmpdir(), 'blockferry-gateway-folder-'));
  return { url: pathToFileURL(root).href, remove: async () => rmSync(root, { recursive: true }) };
}

contractSuite('a folder behind a gateway', async () => {
  const { url, remove } = folder();
  return await through(url, remove);
});

contractSuite('a folder behind a gateway, roots put early', async () => {
  const { url, remove } = folder();
  const place = await through(url, remove);
  return {
    open: async () => early(await place.open()),
    reopen: async () => early(await place.reopen()),
    close: () => place.close(),
  };
});

contractSuite('page blobs behind a gateway', async () => {
  const azurite = await startAzurite();
  return await through(`${azurite.account}/gateway`, () => azurite.stop());
});
