/** Clients that say nothing, too much, or never listen: they cost a bounded amount of memory, and others are served. */
import { describe, expect, it, test, vi } from 'vitest';
import {
  NBD_CONNECTION_BYTES_MAX,
  NBD_CONNECTIONS_MAX,
  NBD_HANDSHAKE_MS_MAX,
  NBD_LINGER_MS_MAX,
  NBD_REQUEST_HELD_BYTES,
  NBD_SERVER_BYTES_MAX,
  NBD_STARVING_MS_MAX,
} from '../../src/limits.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { CMD, NbdClient, OPT, optionBytes, requestBytes, u32 } from '../support/nbd-client.ts';
import { virtualClock } from '../support/virtual-clock.ts';
import { closeGate, startNbdLab } from './nbd-lab.ts';

const MIB = 1024 * 1024;
/** What the system keeps of a Unix socket in both directions, generously. */
const SYSTEM_BYTES_MAX = 2 * MIB;
/** Longer than anything takes here that still goes on. */
const SETTLE_MS = 300;

/** The value, when it has stopped to change. */
async function settled(value: () => number): Promise<number> {
  for (let before = value(); ; before = value()) {
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    if (value() === before) return before;
  }
}

/** The value, when it has reached what is expected and stopped to change. */
async function reached(value: () => number, expected: number): Promise<number> {
  await vi.waitFor(() => expect(value()).toBeGreaterThanOrEqual(expected), { timeout: 60_000 });
  return await settled(value);
}

function many(bytes: Buffer, count: number): Buffer {
  return Buffer.alloc(bytes.byteLength * count, bytes);
}

describe('a client that never reads its answers', () => {
  it('is served until they hold 32 MiB, and goes on when it reads', async () => {
    const { device, open } = await startNbdLab([new MemoryDevice({ sizeBytes: 4 * MIB })]);
    let reads = 0;
    device.gate = () => {
      reads += 1;
      return undefined;
    };
    const [deaf, good] = [await open(), await open()];
    deaf.socket.pause();
    deaf.send(many(requestBytes({ type: CMD.read, length: MIB }), 1000));
    const served = await reached(() => reads, NBD_CONNECTION_BYTES_MAX / MIB);
    expect(served * MIB).toBeLessThanOrEqual(NBD_CONNECTION_BYTES_MAX + SYSTEM_BYTES_MAX + MIB);
    expect(await good.errorOf({ type: CMD.read, length: MIB })).toBe(0);
    deaf.socket.resume();
    for (let i = 0; i < 1000; i += 1) await deaf.reply(MIB);
    expect(reads).toBe(1001);
  });

  it('is not read either when its answers are small', async () => {
    const { device, open } = await startNbdLab();
    let flushes = 0;
    device.gate = () => {
      flushes += 1;
      return undefined;
    };
    const client = await open({ structured: true });
    client.socket.pause();
    const refused = many(requestBytes({ type: 99 }), 100_000);
    for (let i = 0; i < 40; i += 1) client.send(refused);
    client.send(requestBytes({ type: CMD.flush }));
    const unsent = await settled(() => client.socket.writableLength);
    expect(unsent).toBeGreaterThan(50 * MIB);
    expect(flushes).toBe(0);
  });

  it('loses its connection when it is to end, a few seconds later', async () => {
    const clock = virtualClock();
    const { server, open } = await startNbdLab([new MemoryDevice({ sizeBytes: 4 * MIB })], clock);
    const client = await open();
    client.socket.pause();
    client.send(many(requestBytes({ type: CMD.read, length: 4 * MIB }), 4));
    await settled(() => client.socket.bytesRead);
    const closing = server.close();
    await settled(() => client.socket.bytesRead);
    const startMs = clock.monotonicMs();
    await clock.drain();
    await closing;
    expect(clock.monotonicMs() - startMs).toBe(NBD_LINGER_MS_MAX);
  });
});

describe('writes whose data alone reaches a bound', () => {
  test.for([
    [1, 32 * MIB],
    [8, 32 * MIB],
    [12, 8 * MIB],
  ] as const)('go through, on %i connections with %i bytes each', async ([count, lengthBytes]) => {
    const { device, open } = await startNbdLab([new MemoryDevice({ sizeBytes: 32 * MIB })]);
    const clients = await Promise.all(Array.from({ length: count }, () => open()));
    const request = requestBytes({ type: CMD.write, data: Buffer.alloc(lengthBytes, 7) });
    // All have begun before any can end.
    for (const client of clients) client.send(request.subarray(0, -1));
    await settled(() => clients.reduce((sum, { socket }) => sum + socket.writableLength, 0));
    for (const client of clients) client.send(request.subarray(-1));
    for (const client of clients) expect((await client.reply()).error).toBe(0);
    expect(request.subarray(-lengthBytes).equals(device.content.subarray(0, lengthBytes))).toBe(true);
  });
});

describe('requests that do not end', () => {
  it('are taken until they hold 32 MiB, without data too', async () => {
    const { device, open } = await startNbdLab();
    const gate = closeGate(device);
    const client = await open();
    const flushes = many(requestBytes({ type: CMD.flush }), 200_000);
    for (let i = 0; i < 200_000; i += 1) flushes.writeUInt32BE(i, 28 * i + 12);
    client.send(flushes);
    const expected = NBD_CONNECTION_BYTES_MAX / NBD_REQUEST_HELD_BYTES;
    expect(await reached(gate.waiting, expected)).toBe(expected);
    gate.open();
    const cookies: bigint[] = [];
    while (cookies.length < 200_000) cookies.push((await client.reply()).cookie);
    expect(cookies.findIndex((cookie, i) => cookie !== BigInt(i))).toBe(-1);
  });

  it('about the status of ranges count what their answers may take', async () => {
    const { device, open } = await startNbdLab();
    const gate = closeGate(device);
    const contexts = ['base:allocation', 'x-blockferry:dirty'];
    const client = await open({ structured: true, contexts });
    client.send(many(requestBytes({ type: CMD.status, length: MIB }), 1000));
    // 4096 extents of 64 bytes for each context.
    const expected = NBD_CONNECTION_BYTES_MAX / (512 * 1024);
    expect(await reached(gate.waiting, expected)).toBe(expected);
    gate.open();
    for (let i = 0; i < 2000; i += 1) await client.reply();
  });

  it('of many small writes hold what they came in', async () => {
    const { device, open } = await startNbdLab();
    const gate = closeGate(device);
    const client = await open();
    client.send(many(requestBytes({ type: CMD.write, data: Buffer.alloc(512) }), 200_000));
    const started = await settled(gate.waiting);
    expect(started * (NBD_REQUEST_HELD_BYTES + 540)).toBeLessThanOrEqual(NBD_CONNECTION_BYTES_MAX + 128 * 1024);
    gate.open();
    for (let i = 0; i < 200_000; i += 1) await client.reply();
  });
});

describe('clients that hold all memory', () => {
  it('keep others waiting for half a minute; then the one that holds most is cut off', async () => {
    const clock = virtualClock();
    const { device, open, events } = await startNbdLab([new MemoryDevice({ sizeBytes: 32 * MIB })], clock);
    let reads = 0;
    device.gate = () => {
      reads += 1;
      return undefined;
    };
    const hogs = [await open(), await open(), await open()];
    for (const [i, hog] of hogs.entries()) {
      hog.socket.pause();
      hog.send(many(requestBytes({ type: CMD.read, length: (30 + i) * MIB }), 2));
    }
    // Two of 30 MiB, two of 31 MiB: the third finds nothing left.
    await reached(() => reads, 4);
    const good = await open();
    let answered = 0;
    const asking = good.errorOf({ type: CMD.read, length: 512 }).then((error) => {
      answered += 1;
      return error;
    });
    await settled(() => answered);
    expect(answered).toBe(0);
    expect(events.map(({ code }) => code)).not.toContain('CLIENT_DROPPED');
    await clock.run(clock.sleep(NBD_STARVING_MS_MAX));
    expect(await asking).toBe(0);
    const dropped = events.filter(({ code }) => code === 'CLIENT_DROPPED');
    expect(dropped).toHaveLength(1);
    expect(dropped[0]!.message).toMatch(/^NBD client [123] was cut off: it lets \d+ bytes lie while others wait/);
  });

  it('are left alone when nobody waits any more', async () => {
    const clock = virtualClock();
    const { device, open, events } = await startNbdLab([new MemoryDevice({ sizeBytes: 32 * MIB })], clock);
    const gate = closeGate(device, ({ name }) => name === 'write');
    const impatient = await open();
    impatient.send(requestBytes({ type: CMD.write, data: Buffer.alloc(512) }));
    const hogs = [await open(), await open(), await open()];
    for (const hog of hogs) {
      hog.socket.pause();
      hog.send(many(requestBytes({ type: CMD.read, length: 32 * MIB }), 2));
    }
    await settled(() => hogs[2]!.socket.bytesRead);
    impatient.send(requestBytes({ type: CMD.flush }));
    await settled(gate.waiting);
    await impatient.destroy();
    // Its answer finds nobody.
    gate.open();
    await vi.waitFor(() => expect(events.at(-1)!.code).toBe('CLIENT_CLOSED'));
    await clock.run(clock.sleep(NBD_STARVING_MS_MAX));
    await clock.run(clock.sleep(NBD_STARVING_MS_MAX));
    expect(events.map(({ code }) => code)).not.toContain('CLIENT_DROPPED');
  });

  test.for([false, true])('never hold more than the bound and one request (structured: %s)', async (structured) => {
    const { device, open } = await startNbdLab([new MemoryDevice({ sizeBytes: 32 * MIB })]);
    const gate = closeGate(device);
    const hogs = await Promise.all(Array.from({ length: 8 }, () => open({ structured })));
    for (const hog of hogs) hog.send(many(requestBytes({ type: CMD.read, length: 32 * MIB }), 4));
    const expected = NBD_SERVER_BYTES_MAX / (32 * MIB);
    expect(await reached(gate.waiting, expected)).toBe(expected);
    gate.open();
    for (const hog of hogs) expect((await hog.reply(32 * MIB)).error).toBe(0);
  });
});

describe('a client in the handshake', () => {
  it('that says nothing is cut off after a while; one in transmission is not', async () => {
    const clock = virtualClock();
    const { address, open, events } = await startNbdLab([new MemoryDevice()], clock);
    const good = await open();
    const silent = await NbdClient.greet(address);
    await silent.option(OPT.list);
    const startMs = clock.monotonicMs();
    await clock.drain();
    await silent.readToEnd();
    expect(clock.monotonicMs() - startMs).toBe(NBD_HANDSHAKE_MS_MAX);
    expect(events.at(-1)).toMatchObject({ code: 'CLIENT_DROPPED', error: { code: 'NBD_PROTOCOL' } });
    expect(await good.errorOf({ type: CMD.flush })).toBe(0);
  });

  it('that asks without end and never reads gets no further than its answers', async () => {
    const devices = Array.from({ length: 64 }, (_, i) => new MemoryDevice({ name: `${i}`.padStart(4000, 'x') }));
    const { address, server } = await startNbdLab([devices[0]!, ...devices.slice(1)]);
    const client = await NbdClient.dial(address);
    client.socket.pause();
    const before = process.memoryUsage.rss();
    client.send(u32(3));
    for (let i = 0; i < 100; i += 1) client.send(many(optionBytes(OPT.list), 4096));
    expect(await settled(() => client.socket.writableLength)).toBeGreaterThan(4 * MIB);
    // One list of all disks has 257 KiB; all that were asked for have 100 GiB.
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * MIB);
    await client.destroy();
    await server.close();
  });

  it('is one of at most 64', async () => {
    const { address, open, events } = await startNbdLab();
    const silent = await Promise.all(Array.from({ length: NBD_CONNECTIONS_MAX }, () => NbdClient.greet(address)));
    const late = await NbdClient.dial(address);
    expect(await late.readToEnd()).toHaveLength(0);
    await vi.waitFor(() => expect(events.at(-1)).toMatchObject({ code: 'CLIENT_REFUSED' }));
    await Promise.all(silent.map((client) => client.destroy()));
    await vi.waitFor(async () => expect(await (await open()).errorOf({ type: CMD.flush })).toBe(0));
  });
});
