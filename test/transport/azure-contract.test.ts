/** The store contract against the emulator. */
import { nodePorts } from '../../src/host/index.ts';
import { openStore, type Store } from '../../src/transport/index.ts';
import { startAzurite } from '../support/azurite.ts';
import { contractSuite } from './contract.ts';

contractSuite('page blobs in the emulator', async () => {
  const azurite = await startAzurite();
  let places = 0;
  const open = (): Promise<Store> => openStore(`${azurite.account}/contract/p${places}/q`, { ports: nodePorts() });
  return {
    open: () => {
      places += 1;
      return open();
    },
    reopen: open,
    close: () => azurite.stop(),
  };
});
