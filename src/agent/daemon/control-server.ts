/** The agent's side of its control channel. What a client sends is capped, and so is what it leaves unread. */
import { createServer, type Server, type Socket } from 'node:net';
import { KIB } from '../../bytes.ts';
import { BlockferryError, isBlockferryError, toWire } from '../../errors.ts';
import { AGENT_CLIENTS_MAX, AGENT_LINE_BYTES_MAX, AGENT_UNREAD_BYTES_MAX } from '../../limits.ts';
import type { FileSystem } from '../../ports.ts';
import { JsonReader } from '../../replica/index.ts';
import { listenLocally, readLines } from '../../tracker/index.ts';
import type { ItemEvent } from '../types.ts';
import type { AgentCall, AgentCalls } from './control-protocol.ts';
import { stopped } from './operation-context.ts';
import { OPERATIONS } from './operator-verbs.ts';
import type { Agent } from './start-agent.ts';
import { type AgentEvent, OPERATOR_VERBS, type OperatorVerb } from './types.ts';

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

const HANDLERS: { readonly [Call in Exclude<AgentCall, 'events' | 'stop' | OperatorVerb>]: Handler<Call> } = {
  status: (agent) => agent.status(),
  reload: (agent) => agent.reload(),
  pause: named((agent, name) => agent.pause(name)),
  resume: named((agent, name) => agent.resume(name)),
  retry: named((agent, name) => agent.retry(name)),
  resync: named((agent, name) => agent.resync(name)),
};
const CALLS = [...Object.keys(HANDLERS), ...OPERATOR_VERBS, 'events', 'stop'] as readonly AgentCall[];
/** Progress is left out while so much of it waits to be read: the next one says more. */
const SAID_UNREAD_BYTES_MAX = 64 * KIB;

/** A connection, and what it has under way that can be stopped. */
interface Client {
  readonly socket: Socket;
  readonly stops: Map<number, AbortController>;
}

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
    const client: Client = { socket, stops: new Map() };
    this.#sockets.add(socket);
    let underWay = 0;
    // A client that goes away is its own business, and takes what it asked for with it.
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#sockets.delete(socket);
      this.#watching.delete(socket);
      for (const stop of client.stops.values()) stop.abort(stopped('who asked for it went away'));
    });
    const onLine = (line: string): void => {
      underWay += 1;
      if (underWay > REQUESTS_MAX) return void socket.destroy();
      void this.#answer(client, line).finally(() => {
        underWay -= 1;
      });
    };
    readLines(socket, onLine, AGENT_LINE_BYTES_MAX);
  }

  async #answer(client: Client, line: string): Promise<void> {
    const { socket } = client;
    let id: number | undefined;
    try {
      const request = JsonReader.parse(Buffer.from(line), 'request', 'USAGE');
      id = request.field('id').integer(0, Number.MAX_SAFE_INTEGER);
      this.#send(socket, { id, result: await this.#do(client, id, request) });
    } catch (error) {
      const told = isBlockferryError(error) ? error : new BlockferryError('UNEXPECTED', String(error));
      const { stack: _stack, ...wire } = toWire(told);
      this.#send(socket, { id, error: wire });
    }
  }

  async #do(client: Client, id: number, request: JsonReader): Promise<object> {
    const call = request.field('do').oneOf(CALLS);
    switch (call) {
      case 'events':
        this.#watching.add(client.socket);
        return {};
      case 'stop':
        client.stops.get(request.field('call').integer(0, Number.MAX_SAFE_INTEGER))?.abort(stopped('interrupted'));
        return {};
      case 'status':
      case 'reload':
      case 'pause':
      case 'resume':
      case 'retry':
      case 'resync':
        return await HANDLERS[call](this.#agent, request);
      default:
        return await this.#operate(client, id, call, request);
    }
  }

  /** What takes long, and can be stopped; what it has to say meanwhile is passed on. */
  async #operate<V extends OperatorVerb>(client: Client, id: number, verb: V, request: JsonReader): Promise<object> {
    const { socket, stops } = client;
    const name = request.field('name').string(128);
    const asked = OPERATIONS[verb].read(request);
    if (stops.has(id)) request.field('id').fail('is the number of one request at a time');
    const stop = new AbortController();
    stops.set(id, stop);
    const onEvent = (said: ItemEvent): void => {
      const isLate = said.type === 'progress' && socket.writableLength > SAID_UNREAD_BYTES_MAX;
      if (!isLate) this.#send(socket, { id, said });
    };
    try {
      return await this.#agent.operate(verb, name, asked, { signal: stop.signal, onEvent });
    } finally {
      stops.delete(id);
    }
  }

  #send(socket: Socket, answer: object): void {
    if (socket.destroyed || socket.writableEnded) return;
    if (socket.writableLength > AGENT_UNREAD_BYTES_MAX) return void socket.destroy();
    socket.write(`${JSON.stringify(answer)}\n`);
  }
}
