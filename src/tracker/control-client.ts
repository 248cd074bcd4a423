/** The other side of the control channel: for ship and resync, which work on a running tracker from their own process. */
import { connect, type Socket } from 'node:net';
import { BlockferryError, fromWire, type WireError } from '../errors.ts';
import { type ControlCalls, type ControlName, readLines } from './control-protocol.ts';

interface Waiting {
  readonly resolve: (result: never) => void;
  readonly reject: (error: unknown) => void;
}

export class ControlClient {
  readonly #socket: Socket;
  readonly #waiting: Map<number, Waiting> = new Map();
  /** Resolves when the connection is over: the tracker ended, or this side closed it. */
  readonly closed: Promise<void>;
  #lastId = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    readLines(socket, (line) => this.#take(line));
    socket.on('error', () => {});
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
    socket.on('close', () => {
      for (const { reject } of this.#waiting.values()) reject(gone());
      this.#waiting.clear();
    });
  }

  /** undefined if no tracker listens there. */
  static async connect(path: string): Promise<ControlClient | undefined> {
    const socket = connect(path);
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve);
        socket.once('error', reject);
      });
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'ECONNREFUSED') return undefined;
      throw new BlockferryError('LOCAL_STATE', `${path}: the tracker cannot be reached: ${(error as Error).message}`, {
        cause: error,
        facts: { source: path },
      });
    }
    return new ControlClient(socket);
  }

  /** @throws what the tracker answers; TRACKER_GONE if it ends before it answers */
  call<Name extends ControlName>(
    name: Name,
    request: ControlCalls[Name]['takes'],
  ): Promise<ControlCalls[Name]['gives']> {
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) return reject(gone());
      this.#waiting.set(id, { resolve, reject });
      this.#socket.write(`${JSON.stringify({ ...request, id, do: name })}\n`);
    });
  }

  close(): void {
    this.#socket.end();
  }

  #take(line: string): void {
    // The peer is our own program and our own user; whatever else answers there is not talked to any further.
    try {
      const { id, result, error } = JSON.parse(line) as { id: number; result?: never; error?: WireError };
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) waiting?.reject(fromWire(error));
      else waiting?.resolve(result as never);
    } catch {
      this.#socket.destroy();
    }
  }
}

function gone(): BlockferryError {
  return new BlockferryError('TRACKER_GONE', 'the tracker ended before it answered', {
    hint: 'start it again with blockferry track, then repeat the command; nothing is lost',
  });
}
