/**
 * track: serve the disks of an item over NBD and log every write, until told to stop. Works without the store: a machine
 * must start while its replica is out of reach.
 */
import { isAbsolute } from 'node:path';
import { bytesEqual } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { isHalfLaid } from '../replica/index.ts';
import { ControlServer, controlPath, defaultNbdPath, diskStamp, NbdServer, openTracker } from '../tracker/index.ts';
import { type ItemState, LocalItem } from './local-state.ts';
import { sessionSignal, withOwn } from './open-item.ts';
import { stageDirectories } from './sides/index.ts';
import { trackedItem } from './tracking.ts';
import type { Listening, Session, TrackRequest } from './types.ts';

/** Tracks until the session's signal aborts; then ends in order. `onListening` is called when clients may connect. */
export async function track(
  session: Session,
  name: string,
  request: TrackRequest,
  onListening: (listening: Listening) => void | Promise<void>,
): Promise<void> {
  const { ports } = session;
  const signal = sessionSignal(session);
  const item = new LocalItem(session.home, name, ports.files);
  const state = await item.load();
  const description =
    (await item.loadDescription()) ?? (await withOwn(session, name, async ({ replica }) => replica.description));
  const tracked = trackedItem(session, item, state, description);
  const address = parseListen(request.listen, defaultNbdPath(tracked.directory));
  const tracker = await openTracker(tracked, () => confirmDisks(session, item, state));
  const onEvent = ({ code, message }: { code: string; message: string }): void =>
    session.onEvent?.({ type: 'notice', code, message });
  const server = new NbdServer({ devices: tracker.devices, ports, onEvent });
  const control = new ControlServer(tracker, ports.clock);
  try {
    const bound = await server.listen(address);
    await control.listen(controlPath(tracked.directory), ports.files);
    await onListening({
      item: name,
      listen: 'path' in bound ? `unix:${bound.path}` : `${bound.host}:${bound.port}`,
      exports: tracker.devices.map((device, i) => ({
        name: device.name,
        sizeBytes: device.sizeBytes,
        uri: uriOf(bound, i, device.name),
      })),
      tracking: tracker.status(),
    });
    await aborted(signal);
  } finally {
    await server.close();
    await control.close();
    await tracker.close((disk) => diskStamp(disk.source, ports));
  }
}

/** The disks are still those of the item, and no failback was killed while it wrote them. */
async function confirmDisks({ ports: { files } }: Session, item: LocalItem, state: ItemState): Promise<void> {
  if (!bytesEqual((await item.load()).side, state.side)) {
    throw new BlockferryError('ILLEGAL_STATE', `other disks of item "${item.name}" took over just now`, {
      facts: { item: item.name },
      hint: 'run the command again, which serves these',
    });
  }
  for (const [i, directory] of (await stageDirectories(item, state.disks, files)).entries()) {
    if (!(await isHalfLaid(directory, files))) continue;
    const path = state.disks[i]!;
    throw new BlockferryError('ILLEGAL_STATE', `${path} may be half written: its failback was cut off`, {
      facts: { source: path },
      hint: `run blockferry failback ${item.name} again, which finishes it`,
    });
  }
}

/** `unix:PATH` or `HOST:PORT`; a Unix socket in the item's directory by default. */
function parseListen(
  listen: string | undefined,
  defaultPath: string,
): { path: string } | { host: string; port: number } {
  if (listen === undefined) return { path: defaultPath };
  if (listen.startsWith('unix:')) {
    const path = listen.slice('unix:'.length);
    if (isAbsolute(path)) return { path };
  }
  const match = /^(?:\[([0-9a-f:]+)\]|([^:[\]/]+)):(\d{1,5})$/i.exec(listen);
  const port = Number(match?.[3]);
  if (match && port <= 65_535) return { host: match[1] ?? match[2]!, port };
  throw new BlockferryError('USAGE', `"${listen}" is no place to listen`, {
    hint: 'give unix:/absolute/path, or a loopback address and port such as 127.0.0.1:10809',
  });
}

function uriOf(bound: { path: string } | { host: string; port: number }, index: number, name: string): string {
  const path = index === 0 ? '' : encodeURIComponent(name);
  if ('path' in bound) return `nbd+unix:///${path}?socket=${bound.path}`;
  const host = bound.host.includes(':') ? `[${bound.host}]` : bound.host;
  return `nbd://${host}:${bound.port}/${path}`;
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
