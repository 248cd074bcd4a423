/** The tracker's side of the control channel: answers what another process of the same owner asks. */
import { createServer, type Server, type Socket } from 'node:net';
import { BlockferryError, isBlockferryError, toWire } from '../errors.ts';
import { normalizeGuid } from '../guid.ts';
import { DISKS_PER_ITEM_MAX } from '../limits.ts';
import type { Clock, FileSystem } from '../ports.ts';
import { JsonReader } from '../replica/index.ts';
import type { Extent } from '../vhd/index.ts';
import { type ControlCalls, type ControlName, listenLocally, readLines, type WireExtent } from './control-protocol.ts';
import { HeldBarrier, HOLD_MS_MAX } from './held-barrier.ts';
import type { ItemTracker } from './item-tracker.ts';

/** Runs and extents in one answer. */
const PAGE_ITEMS = 4096;

type Handler<Name extends ControlName> = (
  tracker: ItemTracker,
  request: JsonReader,
  barrier: HeldBarrier,
) => ControlCalls[Name]['gives'] | Promise<ControlCalls[Name]['gives']>;

const HANDLERS: { readonly [Name in ControlName]: Handler<Name> } = {
  status: (tracker) => tracker.status(),
  rotate: (tracker, request) => tracker.rotate(readHeads(request)),
  hold: async (_tracker, request, barrier) => {
    await barrier.hold(readHeads(request), request.field('holdMs').integer(1, HOLD_MS_MAX));
    return {};
  },
  'rotate-held': (_tracker, request, barrier) =>
    barrier.rotate(request.field('timeMs').integer(0, Number.MAX_SAFE_INTEGER)),
  release: async (_tracker, _request, barrier) => {
    await barrier.release();
    return {};
  },
  acknowledge: async (tracker, request) => {
    await tracker.acknowledge(readHeads(request));
    return {};
  },
  'give-up': async (tracker, request) => {
    await tracker.giveUp(request.field('message').string(4096));
    return {};
  },
  'stop-writes': async (tracker, request) => {
    await tracker.stopWrites(request.field('stopped').boolean());
    return {};
  },
  'begin-resync': async (tracker, request) => {
    await tracker.beginResync(readHeads(request));
    return {};
  },
  'end-resync': async (tracker, request) => {
    await tracker.endResync(readHeads(request));
    return {};
  },
  'dirty-set': (tracker, request) => {
    const { map } = readDevice(tracker, request);
    const from = request.field('from').integer(0, Number.MAX_SAFE_INTEGER);
    const runs: { from: number; to: number }[] = [];
    for (const run of map.runs(request.field('set').oneOf(['closed', 'changed']), from)) {
      if (runs.length === PAGE_ITEMS) return { runs, next: run.from };
      runs.push(run);
    }
    return { runs };
  },
  describe: (tracker, request) => {
    const { info, identity, contentId } = readDevice(tracker, request).disk;
    return { info, identity, contentId };
  },
  extents: async (tracker, request) => {
    const { disk, sizeBytes } = readDevice(tracker, request);
    const offset = request.field('offset').integer(0, sizeBytes);
    const lengthBytes = request.field('lengthBytes').integer(0, sizeBytes - offset);
    const extents: WireExtent[] = [];
    for await (const extent of disk.extents(offset, lengthBytes)) {
      if (extents.length === PAGE_ITEMS) return { extents, nextOffset: extent.offset };
      extents.push(wireExtent(extent));
    }
    return { extents };
  },
};

export class ControlServer {
  readonly #tracker: ItemTracker;
  readonly #barrier: HeldBarrier;
  readonly #server: Server;
  readonly #sockets: Set<Socket> = new Set();
  readonly #running: Set<Promise<void>> = new Set();

  constructor(tracker: ItemTracker, clock: Clock) {
    this.#tracker = tracker;
    this.#barrier = new HeldBarrier((heads, gate) => tracker.rotate(heads, gate), clock);
    this.#server = createServer((socket) => this.#accept(socket));
  }

  listen(path: string, files: FileSystem): Promise<void> {
    return listenLocally(this.#server, path, files);
  }

  /** Lets what was asked be answered, then ends all connections. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await this.#barrier.release();
    await Promise.allSettled([...this.#running]);
    for (const socket of this.#sockets) socket.end();
    await closed;
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    // A peer that goes away is its own business; what it asked for is done or not, and can be asked again.
    socket.on('error', () => {});
    socket.on('close', () => this.#sockets.delete(socket));
    readLines(socket, (line) => {
      const answering: Promise<void> = this.#answer(socket, line).finally(() => this.#running.delete(answering));
      this.#running.add(answering);
    });
  }

  async #answer(socket: Socket, line: string): Promise<void> {
    let id: number | undefined;
    let answer: object;
    try {
      const request = JsonReader.parse(Buffer.from(line), 'control request', 'USAGE');
      id = request.field('id').integer(0, Number.MAX_SAFE_INTEGER);
      const name = request.field('do').oneOf(Object.keys(HANDLERS) as ControlName[]);
      answer = { id, result: await HANDLERS[name](this.#tracker, request, this.#barrier) };
    } catch (error) {
      answer = {
        id,
        error: toWire(isBlockferryError(error) ? error : new BlockferryError('UNEXPECTED', String(error))),
      };
    }
    if (!socket.destroyed) socket.write(`${JSON.stringify(answer)}\n`);
  }
}

function readHeads(request: JsonReader): readonly string[] {
  return request
    .field('heads')
    .list(DISKS_PER_ITEM_MAX)
    .map((head) => normalizeGuid(head.string(64)) ?? head.fail('is a GUID'));
}

function readDevice(tracker: ItemTracker, request: JsonReader) {
  return tracker.devices[request.field('disk').integer(0, tracker.devices.length - 1)]!;
}

function wireExtent(extent: Extent): WireExtent {
  const { offset, lengthBytes, depth } = extent;
  if (extent.kind === 'data') return { kind: 'data', offset, lengthBytes, depth, fileOffset: extent.fileOffset };
  if (extent.kind !== 'memory') return { kind: extent.kind, offset, lengthBytes, depth };
  return { kind: 'memory', offset, lengthBytes, depth, bytes: Buffer.from(extent.bytes).toString('base64') };
}
