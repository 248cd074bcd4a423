/** The store contract against a folder, on the real file system and on files in memory. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { nodePorts } from '../../src/host/index.ts';
import { openStore, type Store } from '../../src/transport/index.ts';
import { memoryFileSystem } from '../support/memory-files.ts';
import { contractSuite } from './contract.ts';

contractSuite('folder on the real file system', async () => {
  const root = await mkdtemp(join(tmpdir(), 'blockferry-folder-'));
  let places = 0;
  const open = (): Promise<Store> =>
    openStore(pathToFileURL(join(root, `p${places}`, 'q')).href, { ports: nodePorts() });
  return {
    open: () => {
      places += 1;
      return open();
    },
    reopen: open,
    close: () => rm(root, { recursive: true }),
  };
});

contractSuite('folder on files in memory', async () => {
  const ports = { ...nodePorts(), files: memoryFileSystem() };
  let places = 0;
  const open = (): Promise<Store> => openStore(`file:///p${places}`, { ports });
  return {
    open: () => {
      places += 1;
      return open();
    },
    reopen: open,
    close: async () => {},
  };
});
