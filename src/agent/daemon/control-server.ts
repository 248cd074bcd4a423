/** The agent's side of its control channel. What a client sends is capped, and so is what it leaves unread. */
import { createServer, type Server, type Socket } from 'node:net';
import { BlockferryError, isBlockferryError, toWire } from '../../errors.ts';
import { AGENT_CLIENTS_MAX, AGENT_LINE_BYTES_MAX, AGENT_UNREAD_BYTES_MAX } from '../../limits.ts';
import type { FileSystem } from '../../ports.ts';
import { JsonReader } from '../../replica/index.ts';
import { listenLocally, readLines } from '../../tracker/index.ts';
import type { AgentCall, AgentCalls } from './control-protocol.ts';
import type { Agent } from './start-agent.ts';
import type { AgentEvent } from './types.ts';

/** Requests of one connection that are answered at a time; a client that has more of them waits for none. */
const REQUESTS_MAX = 16;

type Handler<Call extends AgentCall> = (
  agent: Agent,
  request: JsonReader,
) => AgentCalls[Call] | Promise<AgentCalls[Call]>;

const named =
  (act: (agent: Agent, name: string) => Promise<void>) =>
  async (agent: Agent, request: JsonReader): Promise<object> => {
    await act(agent, request.field('name').string(128));
    return {};
  };

const HANDLERS: { readonly [Call in Exclude<AgentCall, 'events'>]: Handler<Call> } = {
  status: (agent) => agent.status(),
  reload: (agent) => agent.reload(),
  pause: named((agent, name) => agent.pause(name)),
  resume: named((agent, name) => agent.resume(name)),
  retry: named((agent, name) => agent.retry(name)),
  resync: named((agent, name) => agent.resync(name)),
};
const CALLS = [...Object.keys(HANDLERS), 'events'] as readonly AgentCall[];

export class AgentControlServer {
  readonly #agent: Agent;
  readonly #server: Server;
  readonly #sockets: Set<Socket> = new Set();
  readonly #watching: Set<Socket> = new Set();

  constructor(agent: Agent) {
    this.#agent = agent;
    this.#server = createServer((socket) => this.#accept(socket));
    this.#server.maxConnections = AGENT_CLIENTS_MAX;
  }

  listen(path: string, files: FileSystem): Promise<void> {
    return listenLocally(this.#server, path, files);
  }

  /** Passes an event to all who asked for them. */
  push(event: AgentEvent): void {
    for (const socket of this.#watching) this.#send(socket, { event });
  }

  /** Ends all connections; what was answered still arrives. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.end(() => socket.destroy());
    await closed;
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    let underWay = 0;
    // A client that goes away is its own business.
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#sockets.delete(socket);
      this.#watching.delete(socket);
    });
    const onLine = (line: string): void => {
      underWay += 1;
      if (underWay > REQUESTS_MAX) return void socket.destroy();
      void this.#answer(socket, line).finally(() => {
        underWay -= 1;
      });
    };
    readLines(socket, onLine, AGENT_LINE_BYTES_MAX);
  }

  async #answer(socket: Socket, line: string): Promise<void> {
    let id: number | undefined;
    try {
      const request = JsonReader.parse(Buffer.from(line), 'request', 'USAGE');
      id = request.field('id').integer(0, Number.MAX_SAFE_INTEGER);
      const call = request.field('do').oneOf(CALLS);
      if (call === 'events') this.#watching.add(socket);
      this.#send(socket, { id, result: call === 'events' ? {} : await HANDLERS[call](this.#agent, request) });
    } catch (error) {
      const told = isBlockferryError(error) ? error : new BlockferryError('UNEXPECTED', String(error));
      const { stack: _stack, ...wire } = toWire(told);
      this.#send(socket, { id, error: wire });
    }
  }

  #send(socket: Socket, answer: object): void {
    if (socket.destroyed || socket.writableEnded) return;
    if (socket.writableLength > AGENT_UNREAD_BYTES_MAX) return void socket.destroy();
    socket.write(`${JSON.stringify(answer)}\n`);
  }
}
