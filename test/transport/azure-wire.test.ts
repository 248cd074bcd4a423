/** What the short way does beside what the contract and the traps show of it: tokens of an identity, which only go over TLS. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AccessToken } from '@azure/identity';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import { bounded } from '../../src/transport/azure-attempt.ts';
import { AzureWire, type Target, targetOf } from '../../src/transport/azure-wire.ts';
import { Deadlines } from '../../src/transport/deadlines.ts';

const HOUR_MS = 3_600_000;
const { signal } = new AbortController();

let server: Server;
let status: number;
/** What the service was shown, in order. */
let shown: (string | undefined)[];
let target: Target;
let asked: string[];
let next: () => Promise<AccessToken | null>;
let wire: AzureWire;

beforeAll(async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'bf-wire-'));
  const [key, certificate] = [join(scratch, 'key.pem'), join(scratch, 'certificate.pem')];
  const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  execFileSync('openssl', [...made, '-keyout', key, '-out', certificate, '-subj', '/CN=x'], { stdio: 'ignore' });
  server = createServer({ key: readFileSync(key), cert: readFileSync(certificate) }, (request, response) => {
    shown.push(request.headers.authorization);
    request.resume().on('end', () => response.writeHead(status, { 'content-length': '0' }).end());
  });
  rmSync(scratch, { recursive: true });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  target = targetOf(`https://127.0.0.1:${port}/account/disks/base`, { comp: 'page' });
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

beforeEach(() => {
  // Its certificate is made here, by nobody that a system knows.
  vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0');
  [status, shown, asked] = [201, [], []];
  next = async () => token(HOUR_MS);
  const getToken = (scopes: string | string[]): Promise<AccessToken | null> => {
    asked.push(String(scopes));
    return next();
  };
  wire = new AzureWire({ getToken }, nodePorts().clock);
});
afterEach(() => {
  vi.unstubAllEnvs();
});

/** The one that was asked for last. */
function token(forMs: number): AccessToken {
  return { token: `token ${asked.length}`, expiresOnTimestamp: Date.now() + forMs };
}

function upload(): Promise<void> {
  return wire.upload({ target, headers: {} }, Buffer.alloc(512), () => {});
}

describe('a token', () => {
  it('is asked for once, also by many at a time', async () => {
    await Promise.all([upload(), upload(), upload()]);
    await upload();
    expect(shown).toEqual(Array(4).fill('Bearer token 1'));
    expect(asked).toEqual(['https://storage.azure.com/.default']);
  });

  it('goes with uploads that begin together on connections that serve all of them', async () => {
    let connections = 0;
    const count = (): void => {
      connections += 1;
    };
    server.on('secureConnection', count);
    await Promise.all([upload(), upload(), upload()]);
    await Promise.all([upload(), upload(), upload()]);
    server.off('secureConnection', count);
    expect(connections).toBe(3);
  });

  it('that runs out is replaced before it does', async () => {
    next = async () => token(asked.length === 1 ? 60_000 : HOUR_MS);
    await upload();
    await upload();
    await expect.poll(() => asked).toHaveLength(2);
    await upload();
    expect(shown.at(-1)).toBe('Bearer token 2');
  });

  it('that runs out serves as long as it does while the identity cannot be asked', async () => {
    next = () => (asked.length === 1 ? Promise.resolve(token(60_000)) : Promise.reject(new Error('offline')));
    await upload();
    await upload();
    await expect.poll(() => asked).toHaveLength(2);
    await upload();
    expect(shown).toEqual(Array(3).fill('Bearer token 1'));
  });

  it('that the service refused, or that could not be had, is asked for again', async () => {
    status = 401;
    await expect(upload()).rejects.toMatchObject({ statusCode: 401 });
    status = 201;
    await upload();
    expect(shown).toEqual(['Bearer token 1', 'Bearer token 2']);
    status = 401;
    await expect(upload()).rejects.toMatchObject({ statusCode: 401 });
    next = async () => null;
    await expect(upload()).rejects.toMatchObject({ name: 'AuthenticationError' });
    next = () => Promise.reject(new Error('offline'));
    await expect(upload()).rejects.toThrow('offline');
    [status, next] = [201, async () => ({ token: 'at last', expiresOnTimestamp: Date.now() + HOUR_MS })];
    await upload();
    expect(shown.at(-1)).toBe('Bearer at last');
  });

  it('that comes when nobody waits any more sends nothing', async () => {
    let came = false;
    next = async () => {
      await new Promise((resolve) => setTimeout(resolve, 150));
      came = true;
      return token(HOUR_MS);
    };
    const limits = { deadlines: new Deadlines(nodePorts().clock), timeoutMs: 30 };
    const request = { subject: 'disks/base', operation: 'Put Page at offset 0' };
    const late = bounded(limits, request, 0, undefined, (onInterrupt) =>
      wire.upload({ target, headers: {} }, Buffer.alloc(512), onInterrupt),
    );
    await expect(late).rejects.toMatchObject({ code: 'STORE_TIMEOUT' });
    expect(came).toBe(false);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect([came, shown]).toEqual([true, []]);
    await upload();
    expect(shown).toHaveLength(1);
  });

  it('never goes out without encryption', async () => {
    const request = { target: targetOf('http://127.0.0.1:9/account/disks/base', { comp: 'page' }), headers: {} };
    await expect(wire.upload(request, Buffer.alloc(512), () => {})).rejects.toMatchObject({ code: 'USAGE' });
    await expect(wire.fetch(request, signal)).rejects.toMatchObject({ code: 'USAGE' });
    expect(asked).toEqual([]);
  });
});

it('uploads go through a proxy that the environment names, and straight without one', async () => {
  const asked: (string | undefined)[] = [];
  const proxy = createHttpServer((request, response) => {
    asked.push(request.url);
    request.resume().on('end', () => response.writeHead(201, { 'content-length': '0' }).end());
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const { port } = proxy.address() as AddressInfo;
  vi.stubEnv('HTTP_PROXY', `http://127.0.0.1:${port}`);
  const put = async (url: string): Promise<void> => {
    const plain = new AzureWire('anonymous', nodePorts().clock);
    await plain.upload({ target: targetOf(url, { comp: 'page' }), headers: {} }, Buffer.alloc(512), () => {});
  };
  await put('http://store.example/container/blob?sv=a');
  expect(asked).toEqual(['http://store.example/container/blob?sv=a&comp=page']);
  vi.stubEnv('HTTP_PROXY', '');
  await put(`http://127.0.0.1:${port}/container/blob?sv=a`);
  expect(asked.slice(1)).toEqual(['/container/blob?sv=a&comp=page']);
  proxy.closeAllConnections();
  proxy.close();
});
