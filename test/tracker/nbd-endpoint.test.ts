/** Where a server listens, whom it keeps out, and how it ends. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstat, readdir, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, test, vi } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import { SOCKET_PATH_BYTES_MAX } from '../../src/limits.ts';
import { type BlockDevice, formatAddress, type NbdAddress, NbdServer } from '../../src/tracker/nbd/index.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { CMD, NbdClient, requestBytes } from '../support/nbd-client.ts';
import { closeGate, newFolder, startNbdLab } from './nbd-lab.ts';

const ESHUTDOWN = 108;

function newServer(devices: readonly BlockDevice[] = [new MemoryDevice()]): NbdServer {
  const server = new NbdServer({ devices, ports: nodePorts() });
  onTestFinished(() => server.close());
  return server;
}

/** A socket file whose process was killed. */
async function leaveDeadSocket(path: string): Promise<void> {
  const code = `require('net').createServer().listen(process.argv[1], () => console.log('ready'))`;
  const child = spawn(process.execPath, ['-e', code, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect((await lstat(path)).isSocket()).toBe(true);
}

describe('an address', () => {
  test.for([
    { host: '127.0.0.1', port: 0 },
    { host: '127.1.2.3', port: 0 },
    { host: 'localhost', port: 0 },
  ])('on the loopback is served: $host', async (address) => {
    const actual = await newServer().listen(address);
    const client = await NbdClient.open(actual);
    expect(await client.errorOf({ type: CMD.flush })).toBe(0);
    await client.destroy();
    expect(formatAddress(actual)).toMatch(/^127\.[\d.]+:\d+$/);
  });

  test.for<NbdAddress>([
    { host: '0.0.0.0', port: 0 },
    { host: '::', port: 0 },
    { host: '', port: 0 },
    { host: '192.168.1.1', port: 10_809 },
    { host: 'example.org', port: 10_809 },
    { host: '127.0.0.1.example.org', port: 10_809 },
    { host: '127.1', port: 0 },
    { host: '::ffff:127.0.0.1', port: 0 },
    { host: '127.0.0.1', port: 65_536 },
    { host: '127.0.0.1', port: -1 },
    { host: '127.0.0.1', port: 0.5 },
    { path: '' },
    { path: '\0abstract' },
    { path: '/no/such/folder/s' },
    { path: `/${'s'.repeat(SOCKET_PATH_BYTES_MAX)}` },
  ])('anywhere else is refused: %j', async (address) => {
    await expect(newServer().listen(address)).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('that is taken is refused', async () => {
    const taken = await newServer().listen({ host: '127.0.0.1', port: 0 });
    await expect(newServer().listen(taken)).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('is written as the command line takes it', () => {
    expect(formatAddress({ path: '/run/s' })).toBe('unix:/run/s');
    expect(formatAddress({ host: '::1', port: 10_809 })).toBe('[::1]:10809');
  });
});

describe('a Unix socket', () => {
  it('of a server that died is replaced', async () => {
    const path = join(await newFolder(), 's');
    await leaveDeadSocket(path);
    await newServer().listen({ path });
    const client = await NbdClient.open({ path });
    expect(await client.errorOf({ type: CMD.flush })).toBe(0);
    await client.destroy();
  });

  it('of a server that lives is left to it', async () => {
    const { address, open } = await startNbdLab();
    await expect(newServer().listen(address)).rejects.toMatchObject({
      code: 'USAGE',
      message: `cannot listen on unix:${address.path}: another server listens there`,
    });
    expect(await (await open()).errorOf({ type: CMD.flush })).toBe(0);
  });

  it('does not take the place of a file', async () => {
    const folder = await newFolder();
    const path = join(folder, 'data');
    await writeFile(path, 'precious');
    await expect(newServer().listen({ path })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(newServer().listen({ path: folder })).rejects.toMatchObject({ code: 'USAGE' });
    expect(await readFile(path, 'utf8')).toBe('precious');
  });

  it('is gone when the server is closed', async () => {
    const folder = await newFolder();
    const server = newServer();
    await server.listen({ path: join(folder, 's') });
    expect(await readdir(folder)).toEqual(['s']);
    await server.close();
    expect(await readdir(folder)).toEqual([]);
  });
});

describe('devices', () => {
  const device = (fields: Partial<Record<keyof BlockDevice, unknown>>): BlockDevice =>
    Object.assign(Object.create(new MemoryDevice()) as BlockDevice, fields);

  test.for([
    ['none', []],
    ['two of one name', [new MemoryDevice(), new MemoryDevice()]],
    ['a name with NUL', [device({ name: 'a\0b' })]],
    ['a name that is too long', [device({ name: 'ü'.repeat(2049) })]],
    ['a block of no power of two', [device({ minimumBlockBytes: 513 })]],
    ['a block above 64 KiB', [device({ minimumBlockBytes: 131_072 })]],
    ['a preferred block below the smallest', [device({ minimumBlockBytes: 8192 })]],
    ['a size that is no whole block', [device({ sizeBytes: 1000 })]],
    ['a size that no number holds', [device({ sizeBytes: 2 ** 60 })]],
  ] as const)('that NBD cannot tell of are refused: %s', ([, devices]) => {
    expect(() => new NbdServer({ devices, ports: nodePorts() })).toThrow(RangeError);
  });
});

describe('closing', () => {
  it('lets requests under way end, refuses later ones, and takes no more clients', async () => {
    const { server, device, address, open } = await startNbdLab();
    const gate = closeGate(device);
    const [busy, idle] = [await open(), await open()];
    const shaking = await NbdClient.greet(address);
    busy.send(requestBytes({ type: CMD.write, cookie: 1, data: Buffer.alloc(512, 3) }));
    await vi.waitFor(() => expect(gate.waiting()).toBe(1));
    let isClosed = false;
    const closing = server.close().then(() => {
      isClosed = true;
    });
    await idle.readToEnd();
    await shaking.readToEnd();
    const data = Buffer.alloc(100_000, 4);
    expect((await busy.ask({ type: CMD.write, cookie: 2, data }))[0]).toMatchObject({ cookie: 2n, error: ESHUTDOWN });
    expect((await busy.ask({ type: CMD.read, cookie: 3, length: 5 }))[0]).toMatchObject({ error: ESHUTDOWN });
    await expect(NbdClient.dial(address)).rejects.toThrow();
    expect(isClosed).toBe(false);
    gate.open();
    expect(await busy.reply()).toMatchObject({ cookie: 1n, error: 0 });
    await busy.readToEnd();
    await closing;
    expect(device.content.subarray(0, 512)).toEqual(Buffer.alloc(512, 3));
  });

  it('waits for the disk, also where the client has left', async () => {
    const { server, device, open } = await startNbdLab();
    const gate = closeGate(device);
    const client = await open();
    client.send(requestBytes({ type: CMD.flush }));
    await vi.waitFor(() => expect(gate.waiting()).toBe(1));
    await client.destroy();
    let isClosed = false;
    const closing = server.close().then(() => {
      isClosed = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(isClosed).toBe(false);
    gate.open();
    await closing;
  });

  it('may be asked for twice, and before anybody listened', async () => {
    const server = newServer();
    await Promise.all([server.close(), server.close()]);
  });

  it('leaves no client waiting that was just let in', async () => {
    const { server, address } = await startNbdLab();
    const socket = connect(address);
    socket.on('error', () => {});
    const ended = new Promise((resolve) => socket.once('close', resolve));
    await server.close();
    await ended;
  });
});
