/** What servers may do to a connection that carries uploads, said byte for byte by a server of a few lines. */

import type { AddressInfo } from 'node:net';
import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HTTP_HEAD_BYTES_MAX } from '../../src/limits.ts';
import { type UploadAnswer, UploadLine } from '../../src/transport/upload-line.ts';

const BODY = Buffer.alloc(4096, 7);
const CREATED = 'HTTP/1.1 201 Created\r\nContent-Length: 0\r\nx-ms-request-id: a\r\n\r\n';
const CREATED_IN_CHUNKS = 'HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n';

/** What is sent for each request, in the order of requests; a function does it by itself. */
type Step = string | ((socket: Socket) => void);

let server: Server;
let steps: Step[];
/** Whole requests, and the connection that each came on. */
let requests: { readonly text: string; readonly connection: number }[];
let sockets: Socket[];
let nowMs: number;
let line: UploadLine;

beforeEach(async () => {
  [steps, requests, sockets, nowMs] = [[], [], [], 0];
  server = createServer((socket) => {
    const connection = sockets.push(socket);
    let text = '';
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1');
      const headEnd = text.indexOf('\r\n\r\n') + 4;
      if (headEnd < 4 || text.length < headEnd + BODY.byteLength) return;
      requests.push({ text, connection });
      text = '';
      const step = steps.shift() ?? CREATED;
      if (typeof step === 'string') socket.write(step, 'latin1');
      else step(socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const clock = { nowMs: () => 0, monotonicMs: () => nowMs, sleep: async () => {} };
  line = new UploadLine(new URL(`http://127.0.0.1:${port}`), clock);
});
afterEach(() => {
  line.close();
  for (const socket of sockets) socket.destroy();
  server.close();
});

function put(headers: Readonly<Record<string, string>> = {}): Promise<UploadAnswer> {
  return line.put('/c/blob?comp=page', { 'content-length': String(BODY.byteLength), ...headers }, BODY, () => {});
}

/** The connections that requests came on. */
function connections(): number[] {
  return requests.map(({ connection }) => connection);
}

/** Until what the other side sent or closed has arrived. */
function arrived(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 50));
}

describe('an upload', () => {
  it('is one request with its headers and body', async () => {
    const { status, headers } = await put({ 'x-ms-range': 'bytes=0-4095' });
    expect([status, headers.get('x-ms-request-id')]).toEqual([201, 'a']);
    const { host } = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    const head = `PUT /c/blob?comp=page HTTP/1.1\r\nhost: ${host}\r\ncontent-length: 4096\r\nx-ms-range: bytes=0-4095\r\n\r\n`;
    expect(requests.map(({ text }) => text)).toEqual([head + BODY.toString('latin1')]);
  });

  it('never carries a header that ends its line', async () => {
    for (const value of ['a\r\nx: b', 'a\nb', 'a\0b', 'ü€']) {
      await expect(put({ 'x-ms-lease-id': value })).rejects.toThrow('x-ms-lease-id');
    }
    expect(sockets).toEqual([]);
  });

  it('that nobody waits for any more when it begins is never sent', async () => {
    await expect(line.put('/x', {}, BODY, (stop) => stop(new Error('too late')))).rejects.toThrow();
    await arrived();
    expect(requests).toEqual([]);
    await put();
    expect(requests).toHaveLength(1);
  });

  it('reads an answer that comes byte by byte', async () => {
    steps.push((socket) => {
      const bytes = [...CREATED_IN_CHUNKS];
      const next = (): void => {
        const byte = bytes.shift();
        if (byte !== undefined) socket.write(byte, 'latin1', () => setImmediate(next));
      };
      next();
    });
    expect((await put()).status).toBe(201);
    await put();
    expect(connections()).toEqual([1, 1]);
  });

  it('that nobody waits for any more ends with its connection', async () => {
    let stop: (error: Error) => void = () => {};
    steps.push(() => stop(new Error('enough')));
    const waiting = line.put('/x', { 'content-length': String(BODY.byteLength) }, BODY, (by) => {
      stop = by;
    });
    await expect(waiting).rejects.toThrow('enough');
    await put();
    expect(connections()).toEqual([1, 2]);
  });
});

describe('a connection', () => {
  it.each([CREATED, CREATED_IN_CHUNKS])('serves again behind %j', async (answer) => {
    steps.push(answer, answer);
    for (let i = 0; i < 3; i += 1) await put();
    expect(connections()).toEqual([1, 1, 1]);
  });

  it('is never shared: uploads at once have one each, which then serve on', async () => {
    await Promise.all([put(), put(), put()]);
    expect(new Set(connections())).toEqual(new Set([1, 2, 3]));
    await Promise.all([put(), put(), put()]);
    expect(sockets).toHaveLength(3);
  });

  const OTHER = 'HTTP/1.1 201 Created\r\ncontent-length: 0\r\nx-ms-request-id: of another\r\n\r\n';
  it.each([
    ['an error', `HTTP/1.1 412 No\r\nx-ms-error-code: LeaseLost\r\ncontent-length: 0\r\n\r\n`, 412],
    ['an error with a body that never comes', 'HTTP/1.1 503 Busy\r\ncontent-length: 900\r\n\r\n', 503],
    ['a success with a body', `HTTP/1.1 201 Created\r\ncontent-length: ${OTHER.length}\r\n\r\n${OTHER}`, 201],
    ['a success of unknown length', 'HTTP/1.1 201 Created\r\n\r\n', 201],
    ['two lengths', 'HTTP/1.1 201 Created\r\ncontent-length: 0\r\ncontent-length: 5\r\n\r\n', 201],
    [
      'length and chunks',
      'HTTP/1.1 201 Created\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
      201,
    ],
    ['chunks of something', 'HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n', 201],
    ['an answer to nobody behind its own', `${CREATED}${OTHER}`, 201],
    [
      'an answer that ends the connection',
      'HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-length: 0\r\n\r\n',
      201,
    ],
  ])('does not serve again behind %s', async (_name, answer, status) => {
    steps.push(answer);
    expect((await put()).status).toBe(status);
    expect((await put()).headers.get('x-ms-request-id')).toBe('a');
    expect(connections()).toEqual([1, 2]);
  });

  it('on which something came that nobody asked for does not serve again', async () => {
    await put();
    sockets[0]!.write(OTHER);
    await arrived();
    expect((await put()).headers.get('x-ms-request-id')).toBe('a');
    expect(connections()).toEqual([1, 2]);
  });

  it('that was closed while it was idle does not serve again', async () => {
    await put();
    sockets[0]!.end();
    await arrived();
    await put();
    expect(connections()).toEqual([1, 2]);
  });

  it('that was idle for four seconds is left, before the server leaves it', async () => {
    await put();
    nowMs = 3_999;
    await put();
    nowMs += 4_000;
    await put();
    expect(connections()).toEqual([1, 1, 2]);
  });

  it('keeps no process alive while it is idle', async () => {
    const alive = (): number => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;
    await expect.poll(alive).toBe(0);
    await put();
    for (const socket of sockets) socket.unref();
    expect(alive()).toBe(0);
  });
});

describe('what is no answer fails', () => {
  it.each([
    ['HPE_INVALID', 'SSH-2.0-x\r\n\r\n'],
    ['HPE_INVALID', 'HTTP/1.1 100 Continue\r\n\r\n'],
    ['HPE_INVALID', 'HTTP/1.0 201 Created\r\n\r\n'],
    ['HPE_INVALID', 'HTTP/1.1 201 Created\r\ncontent-length : 0\r\n\r\n'],
    ['HPE_INVALID', 'HTTP/1.1 201 Created\r\nx: a\r\n content-length: 0\r\n\r\n'],
    ['HPE_INVALID', `HTTP/1.1 201 Created\r\nx: ${'a'.repeat(HTTP_HEAD_BYTES_MAX)}\r\n\r\n`],
    ['HPE_INVALID', 'a'.repeat(HTTP_HEAD_BYTES_MAX + 1)],
  ])('with %s: %j', async (code, text) => {
    steps.push(text);
    await expect(put()).rejects.toMatchObject({ code });
    await put();
    expect(connections()).toEqual([1, 2]);
  });

  it('with ECONNRESET where the connection ends, before its head or in it', async () => {
    steps.push((socket) => socket.end());
    await expect(put()).rejects.toMatchObject({ code: 'ECONNRESET' });
    steps.push((socket) => socket.end('HTTP/1.1 201 Created\r\ncontent-le'));
    await expect(put()).rejects.toMatchObject({ code: 'ECONNRESET' });
    steps.push((socket) => socket.resetAndDestroy());
    await expect(put()).rejects.toMatchObject({ code: 'ECONNRESET' });
  });

  it('with ECONNREFUSED where nobody listens', async () => {
    await new Promise<void>((resolve) => server.close(() => resolve()));
    await expect(put()).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });
});
