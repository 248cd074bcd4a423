/** Talking to the agent of a home from another process. */
import { connect, type Socket } from 'node:net';
import { BlockferryError, fromWire, type WireError } from '../../errors.ts';
import { readLines } from '../../tracker/index.ts';
import type { ItemEvent } from '../types.ts';
import { type AgentCall, type AgentCalls, agentSocketPath } from './control-protocol.ts';
import type { ConfigChanges } from './engine.ts';
import { EventStreams } from './event-streams.ts';
import type { OperateOptions, OperatorReports, OperatorRequests } from './operator-verbs.ts';
import type { AgentEvent, AgentStatus, OperatorVerb } from './types.ts';

/** An agent that runs elsewhere. Each call throws what the agent answers, and AGENT_GONE if it ends before. */
export interface AgentControl {
  status(): Promise<AgentStatus>;
  reload(): Promise<ConfigChanges>;
  pause(name: string): Promise<void>;
  resume(name: string): Promise<void>;
  retry(name: string): Promise<void>;
  resync(name: string): Promise<void>;
  /** Runs a verb that changes sides in the machine's turn. The signal stops it at its next safe place. */
  operate<V extends OperatorVerb>(
    verb: V,
    name: string,
    request: OperatorRequests[V],
    options?: OperateOptions,
  ): Promise<OperatorReports[V]>;
  /** Events from this call on, until the agent ends or the signal fires. */
  events(signal?: AbortSignal): AsyncIterableIterator<AgentEvent>;
  close(): void;
}

/** @throws AGENT_GONE if no agent runs there */
export async function connectAgent(home: string): Promise<AgentControl> {
  const path = agentSocketPath(home);
  const socket = connect(path);
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
  } catch (cause) {
    throw new BlockferryError('AGENT_GONE', `no agent answers at ${path}: ${(cause as Error).message}`, {
      cause,
      facts: { path },
      hint: 'start it with blockferry agent --config FILE, or name its home with --home or --config',
    });
  }
  return new AgentConnection(socket);
}

interface Waiting {
  readonly onEvent: ((event: ItemEvent) => void) | undefined;
  readonly resolve: (result: never) => void;
  readonly reject: (error: unknown) => void;
}

/** A line of the agent. */
interface Told {
  readonly id?: number;
  readonly result?: never;
  readonly error?: WireError;
  readonly event?: AgentEvent;
  readonly said?: ItemEvent;
}

class AgentConnection implements AgentControl {
  readonly #socket: Socket;
  readonly #waiting: Map<number, Waiting> = new Map();
  readonly #events: EventStreams = new EventStreams();
  #lastId = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
    readLines(socket, (line) => this.#take(line));
    socket.on('error', () => {});
    socket.on('close', () => {
      for (const { reject } of this.#waiting.values()) reject(gone());
      this.#waiting.clear();
      this.#events.close();
    });
  }

  status(): Promise<AgentStatus> {
    return this.#call('status');
  }

  reload(): Promise<ConfigChanges> {
    return this.#call('reload');
  }

  async pause(name: string): Promise<void> {
    await this.#call('pause', { name });
  }

  async resume(name: string): Promise<void> {
    await this.#call('resume', { name });
  }

  async retry(name: string): Promise<void> {
    await this.#call('retry', { name });
  }

  async resync(name: string): Promise<void> {
    await this.#call('resync', { name });
  }

  async operate<V extends OperatorVerb>(
    verb: V,
    name: string,
    request: OperatorRequests[V],
    { signal, onEvent }: OperateOptions = {},
  ): Promise<OperatorReports[V]> {
    const answer = this.#call(verb, { ...request, name }, onEvent);
    const call = this.#lastId;
    // Its answer is waited for all the same: only then has it ended.
    const onAbort = (): void => void this.#call('stop', { call }).catch(() => {});
    if (signal?.aborted) onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      return (await answer) as OperatorReports[V];
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  async *events(signal?: AbortSignal): AsyncGenerator<AgentEvent, void> {
    const events = this.#events.open();
    const onAbort = (): void => void this.#socket.destroy();
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await this.#call('events');
      yield* events;
    } finally {
      signal?.removeEventListener('abort', onAbort);
      await events.return?.();
    }
  }

  close(): void {
    this.#socket.end();
    // An agent that hangs does not keep this process from ending.
    this.#socket.unref();
  }

  #call<Call extends AgentCall>(
    call: Call,
    request: object = {},
    onEvent?: (event: ItemEvent) => void,
  ): Promise<AgentCalls[Call]> {
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) return reject(gone());
      this.#waiting.set(id, { resolve, reject, onEvent });
      this.#socket.write(`${JSON.stringify({ ...request, id, do: call })}\n`);
    });
  }

  #take(line: string): void {
    // The peer is our own program and our own user; whatever else answers there is not talked to any further.
    try {
      const told = JSON.parse(line) as Told;
      if (told.event) this.#events.push(told.event);
      if (told.id === undefined) return;
      const waiting = this.#waiting.get(told.id);
      if (told.said) {
        waiting?.onEvent?.(told.said);
        return;
      }
      this.#waiting.delete(told.id);
      if (told.error) waiting?.reject(fromWire(told.error));
      else waiting?.resolve(told.result as never);
    } catch {
      this.#socket.destroy();
    }
  }
}

function gone(): BlockferryError {
  return new BlockferryError('AGENT_GONE', 'the agent ended before it answered', {
    hint: 'start it again with blockferry agent --config FILE; nothing is lost',
  });
}
