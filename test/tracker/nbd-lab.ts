/** An NBD server over memory devices on a socket of its own, with all that it reported; closed at the end of the test. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import type { Clock } from '../../src/ports.ts';
import { type BlockDevice, type NbdEvent, NbdServer } from '../../src/tracker/nbd/index.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { NbdClient } from '../support/nbd-client.ts';

export interface NbdLab {
  readonly server: NbdServer;
  readonly address: { readonly path: string };
  /** For clients that take URIs. */
  readonly uri: string;
  readonly events: NbdEvent[];
  /** The first device. */
  readonly device: MemoryDevice;
  open(options?: Parameters<typeof NbdClient.open>[1]): Promise<NbdClient>;
}

/** A folder for one test. */
export async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'blockferry-nbd-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export async function startNbdLab(
  devices: readonly [MemoryDevice, ...BlockDevice[]] = [new MemoryDevice()],
  clock: Clock = nodePorts().clock,
): Promise<NbdLab> {
  const address = { path: join(await newFolder(), 's') };
  const events: NbdEvent[] = [];
  const ports = { clock, files: nodePorts().files };
  const server = new NbdServer({ devices, ports, onEvent: (event) => events.push(event) });
  await server.listen(address);
  const clients: NbdClient[] = [];
  onTestFinished(async () => {
    for (const client of clients) client.socket.destroy();
    await server.close();
  });
  return {
    server,
    address,
    uri: `nbd+unix:///?socket=${address.path}`,
    events,
    device: devices[0],
    async open(options) {
      const client = await NbdClient.open(address, options);
      clients.push(client);
      return client;
    },
  };
}

/** Holds the calls of a device that `picks` names until `open`. */
export function closeGate(
  device: MemoryDevice,
  picks: (call: Parameters<NonNullable<MemoryDevice['gate']>>[0]) => boolean = () => true,
): { readonly waiting: () => number; open: () => void } {
  let waiting = 0;
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  device.gate = (call) => {
    if (!picks(call)) return undefined;
    waiting += 1;
    return opened;
  };
  return {
    waiting: () => waiting,
    open: () => {
      device.gate = undefined;
      open();
    },
  };
}
