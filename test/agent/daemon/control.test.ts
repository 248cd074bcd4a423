/** The control socket of an agent in this process, and clients that are not nice. */
import { getEventListeners } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { childSignal } from '../../../src/agent/daemon/child-signal.ts';
import { EventStreams } from '../../../src/agent/daemon/event-streams.ts';
import { type Agent, type AgentEvent, connectAgent, loadConfig, startAgent } from '../../../src/agent/daemon/index.ts';
import { nodePorts } from '../../../src/host/index.ts';
import { AGENT_CLIENTS_MAX, AGENT_LINE_BYTES_MAX } from '../../../src/limits.ts';

const ports = nodePorts();

let home: string;
let agent: Agent;
const sockets = new Set<Socket>();

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'bf-control-'));
  // Its time never comes, so nothing runs but the agent itself.
  const text =
    'machines: [{ name: vm, disks: [vm.raw], to: "file:///nowhere", first-copy-at: 2999-01-01T00:00:00Z, low-space: tell }]';
  agent = await startAgent({ config: loadConfig(text, join(home, 'agent.yaml')), ports, environment: {}, home });
});
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  await agent.stop();
  await rm(home, { recursive: true, force: true });
});

interface Client {
  readonly socket: Socket;
  readonly answers: Record<string, unknown>[];
  readonly closed: Promise<void>;
  /** The answer to the request of this id. */
  readonly answer: (id: number) => Promise<Record<string, unknown>>;
}

async function dial(): Promise<Client> {
  const socket = connect(join(home, 'agent', 'control.sock'));
  sockets.add(socket);
  socket.on('error', () => {});
  const answers: Record<string, unknown>[] = [];
  let rest = '';
  socket.on('data', (bytes: Buffer) => {
    const lines = (rest + bytes.toString('utf8')).split('\n');
    rest = lines.pop()!;
    for (const line of lines) answers.push(JSON.parse(line) as Record<string, unknown>);
    socket.emit('answers');
  });
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  await new Promise((resolve) => socket.once('connect', resolve));
  const answer = async (id: number): Promise<Record<string, unknown>> => {
    for (;;) {
      const found = answers.find((each) => each['id'] === id);
      if (found) return found;
      await new Promise((resolve) => socket.once('answers', resolve));
    }
  };
  return { socket, answers, closed, answer };
}

async function stillAnswers(): Promise<void> {
  const control = await connectAgent(home);
  expect((await control.status()).machines).toMatchObject([{ name: 'vm', state: 'ready' }]);
  control.close();
}

test('only its owner reaches the socket’s directory entry, and a socket that a dead agent left is replaced', async () => {
  expect((await stat(join(home, 'agent', 'control.sock'))).isSocket()).toBe(true);
  await stillAnswers();
});

describe('answered with an error, and the connection goes on', () => {
  test.each([
    ['no JSON', 'hello'],
    ['a number', '7'],
    ['null', 'null'],
    ['no id', '{"do":"status"}'],
    ['an id that is no number', '{"id":"1","do":"status"}'],
    ['an unknown verb', '{"id":5,"do":"format"}'],
    ['a verb that every object has', '{"id":5,"do":"constructor"}'],
    ['no name', '{"id":5,"do":"pause"}'],
    ['a name that is no text', '{"id":5,"do":"pause","name":{}}'],
    ['a name that nobody has', '{"id":5,"do":"pause","name":"__proto__"}'],
    ['a long name', `{"id":5,"do":"pause","name":"${'x'.repeat(1000)}"}`],
    ['deep nesting', `${'['.repeat(20_000)}${']'.repeat(20_000)}`],
    ['bytes that are no UTF-8', Buffer.from([0xff, 0xfe, 0x80])],
  ])('%s', async (_name, line) => {
    const { socket, answers, answer } = await dial();
    socket.write(Buffer.concat([Buffer.from(line), Buffer.from('\n{"id":1,"do":"status"}\n')]));
    await answer(1);
    expect(answers).toContainEqual(
      expect.objectContaining({ error: expect.objectContaining({ code: expect.any(String) }) }),
    );
    const [refused] = answers.filter(({ error }) => error);
    expect(JSON.stringify(refused)).not.toContain('stack');
    await stillAnswers();
  });
});

test('a request that comes byte by byte, and several in one piece, are answered', async () => {
  const { socket, answer } = await dial();
  for (const byte of Buffer.from('{"id":1,"do":"status"}\n')) {
    socket.write(Buffer.of(byte));
    await new Promise((resolve) => setImmediate(resolve));
  }
  await answer(1);
  socket.write('{"id":2,"do":"status"}\n{"id":3,"do":"status"}\n{"id":4,"do":"status"}\n');
  await Promise.all([answer(2), answer(3), answer(4)]);
});

test('a line without an end is cut off, and so is who asks without waiting for answers', async () => {
  const endless = await dial();
  endless.socket.write(Buffer.alloc(AGENT_LINE_BYTES_MAX + 1, 'x'));
  await endless.closed;
  const hasty = await dial();
  hasty.socket.write('{"id":1,"do":"pause","name":"vm"}\n{"id":1,"do":"resume","name":"vm"}\n'.repeat(200));
  await hasty.closed;
  await stillAnswers();
});

test('who watches events and does not read is cut off, and nobody else notices', async () => {
  const lazy = await dial();
  const busy = await dial();
  lazy.socket.write('{"id":1,"do":"events"}\n');
  await lazy.answer(1);
  lazy.socket.pause();
  busy.socket.write('{"id":1,"do":"events"}\n');
  await busy.answer(1);
  // Each refused configuration is an event; a long message makes it a large one.
  const path = `${'x'.repeat(4000)}.yaml`;
  for (let i = 0; i < 600; i += 1) {
    await agent
      .reload(
        loadConfig(
          'machines: [{ name: vm, disks: [vm.raw], to: "file:///x", serve: { listen: "127.0.0.1:1" } }]',
          path,
        ),
      )
      .catch(() => {});
    await new Promise((resolve) => setImmediate(resolve));
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
  lazy.socket.resume();
  await lazy.closed;
  expect(busy.socket.destroyed).toBe(false);
  const refused = busy.answers.filter(({ event }) => (event as AgentEvent | undefined)?.type === 'config-refused');
  expect(refused.length).toBe(600);
  await stillAnswers();
});

test('more clients than allowed are turned away, and come in when others leave', async () => {
  const clients: Client[] = [];
  for (let i = 0; i < AGENT_CLIENTS_MAX; i += 1) clients.push(await dial());
  const late = await dial();
  await late.closed;
  for (const { socket } of clients) socket.destroy();
  await Promise.all(clients.map(({ closed }) => closed));
  await stillAnswers();
});

test('an agent that ends ends its connections, and says so to who waits', async () => {
  const control = await connectAgent(home);
  const seen: AgentEvent[] = [];
  const watching = (async () => {
    for await (const event of control.events()) seen.push(event);
  })();
  await control.pause('vm');
  await agent.stop();
  await watching;
  expect(seen.at(-1)).toMatchObject({ type: 'agent-stopped' });
  await expect(control.status()).rejects.toMatchObject({ code: 'AGENT_GONE' });
  await expect(connectAgent(home)).rejects.toMatchObject({ code: 'AGENT_GONE' });
});

test('reloads that are asked for at once follow one another: what both add is there once', async () => {
  const events: AgentEvent[] = [];
  const stream = agent.events();
  const reading = (async () => {
    for await (const event of stream) events.push(event);
  })();
  const text = 'machines: [{ name: two, disks: [gone.raw], to: "file:///nowhere", low-space: tell }]';
  const next = loadConfig(text, join(home, 'agent.yaml'));
  const changes = await Promise.all([agent.reload(next), agent.reload(next)]);
  expect(changes).toEqual([
    { added: ['two'], removed: ['vm'], changed: [] },
    { added: [], removed: [], changed: [] },
  ]);
  await agent.stop();
  await reading;
  expect(events.filter(({ type }) => type === 'operation-started').length).toBeLessThanOrEqual(1);
});

test('a second agent on the home is refused, and one after it is not', async () => {
  const config = loadConfig('machines: [{ name: vm, disks: [vm.raw], to: "file:///x" }]', join(home, 'agent.yaml'));
  const options = { config, ports, environment: {}, home };
  await expect(startAgent(options)).rejects.toMatchObject({ code: 'ITEM_LOCKED' });
  await agent.stop();
  const another = await startAgent({ ...options, config: { ...config, machines: [] } });
  await another.stop();
});

test('a stream of events that nobody reads ends by itself, and one that is left behind holds nothing', async () => {
  const streams = new EventStreams();
  const lazy = streams.open();
  const left = streams.open();
  await left.return?.();
  const event: AgentEvent = { type: 'agent-started', machines: 1, timeMs: 0 };
  for (let i = 0; i < 20_000; i += 1) streams.push(event);
  expect(await lazy.next()).toMatchObject({ done: true });
});

test('a signal of one piece of work leaves nothing behind in the signals that it follows', () => {
  const parent = new AbortController();
  for (let i = 0; i < 1000; i += 1) childSignal(parent.signal).release();
  expect(getEventListeners(parent.signal, 'abort')).toEqual([]);
  const child = childSignal(parent.signal);
  parent.abort('why');
  expect(child.signal.reason).toBe('why');
  expect(childSignal(parent.signal).signal.aborted).toBe(true);
});
