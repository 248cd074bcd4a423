/** The HTTP side of a gateway: TLS, who is let in, and what becomes of requests that were made to hurt. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openStore } from '../../src/transport/index.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import { filled } from '../transport/contract.ts';
import { GatewayLab, TOKEN } from './support.ts';

const SEED = numberFromEnvironment('BLOCKFERRY_SEED', 1);
const CASES = numberFromEnvironment('BLOCKFERRY_CASES', 300);

let scratch: string;
let lab: GatewayLab;

beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'bf-gateway-server-'));
});
afterEach(async () => {
  await lab.close();
  rmSync(scratch, { recursive: true });
});

async function start(options: Partial<Parameters<typeof GatewayLab.start>[0]> = {}): Promise<void> {
  lab = await GatewayLab.start({ url: pathToFileURL(join(scratch, 'store')).href, ...options });
}

interface Ask {
  readonly path?: string;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

/** One request, as anybody could make it. */
function ask({
  path = '/v1/main/a',
  method = 'POST',
  headers = {},
  body,
}: Ask): Promise<{ status: number; text: string }> {
  const { port } = new URL(lab.gateway.url.replace('gateway+', ''));
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, (answer) => {
      const pieces: Buffer[] = [];
      answer.on('data', (piece: Buffer) => pieces.push(piece));
      answer.on('end', () => resolve({ status: answer.statusCode!, text: Buffer.concat(pieces).toString('utf8') }));
      answer.on('error', reject);
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

const ME = { authorization: `Bearer ${TOKEN}` };

describe('a gateway with a certificate', () => {
  it('is trusted by who has its authority, and by nobody else', async () => {
    const [key, certificate] = [join(scratch, 'key.pem'), join(scratch, 'certificate.pem')];
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1'];
    const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
    execFileSync('openssl', [...made, '-keyout', key, '-out', certificate, ...subject], { stdio: 'ignore' });
    await start({ tls: { certificate, key } });
    const gateway = { tokenFile: lab.tokenFile, caFile: certificate };
    const trusting = await openStore(lab.url('main/a'), { ports: lab.ports, environment: { gateway } });
    await trusting.put('object', filled(10, 1));
    expect((await trusting.get('object', 10))?.bytes[9]).toBe(1);
    await trusting.close();
    const other = await lab.open('main/a');
    await expect(other.get('object', 10)).rejects.toMatchObject({ code: 'STORE_UNREACHABLE', retryable: false });
    await other.close();
  });
});

describe('a request', () => {
  it('without a known token is 401, for a place of others 403, whatever else it is', async () => {
    await start({ may: ['main/mine'] });
    for (const authorization of [
      '',
      'Bearer ',
      'Bearer wrong',
      `Basic ${TOKEN}`,
      `Bearer ${TOKEN}x`,
      `bearer ${TOKEN}`,
    ]) {
      expect((await ask({ path: '/v1/main/mine', headers: { authorization } })).status, authorization).toBe(401);
    }
    const call = { 'x-blockferry-call': '{"do":"prepare"}', 'x-blockferry-crc': '00000000', 'content-length': '0' };
    for (const [path, status] of [
      ['/v1/main/mine', 200],
      ['/v1/main/mine/below', 200],
      ['/v1/main/miner', 403],
      ['/v1/main', 400],
      ['/v1/main/other', 403],
      ['/v1/main/mine/../other', 400],
      ['/v1/main/mine/%2e%2e/other', 400],
      ['/v1/main/mine//x', 400],
      ['/v1/other/mine', 403],
    ] as const) {
      expect((await ask({ path, headers: { ...ME, ...call } })).status, path).toBe(status);
    }
  });

  it('that breaks the protocol is a typed 4xx, and nobody else notices', async () => {
    await start();
    const client = await lab.open('main/a');
    await client.put('object', filled(10, 1));
    const good = { do: 'get', key: 'object', maxBytes: 10 };
    const crc = { 'x-blockferry-crc': '00000000' };
    const header = (call: unknown): Readonly<Record<string, string>> => ({
      ...ME,
      ...crc,
      'content-length': '0',
      'x-blockferry-call': typeof call === 'string' ? call : JSON.stringify(call),
    });
    for (const asked of [
      { method: 'GET', headers: header(good) },
      {
        headers: { ...ME, ...crc, 'x-blockferry-call': JSON.stringify(good), 'transfer-encoding': 'chunked' },
        body: filled(9, 1),
      },
      { headers: { ...header(good), 'content-length': '99999999' } },
      { headers: { ...ME, 'content-length': '0' } },
      { headers: header('{') },
      { headers: header('[]') },
      { headers: header({ do: 'toString' }) },
      { headers: header({ ...good, do: '__proto__' }) },
      { headers: header({ do: 'get', key: 'object' }) },
      { headers: header({ ...good, key: '../../etc/passwd' }) },
      { headers: header({ ...good, key: 7 }) },
      { headers: header({ ...good, maxBytes: '10' }) },
      { headers: header({ ...good, maxBytes: 1e300 }) },
      { headers: header({ do: 'read', key: 'object', offset: -1, lengthBytes: 2 }) },
      { headers: header({ do: 'read', key: 'object', offset: 0, lengthBytes: 2 ** 40 }) },
      { headers: header({ do: 'stage-put', key: 'logs/1', partBytes: 10, staging: '../x', index: 0 }) },
      { headers: header({ do: 'pages-create', key: 'disk', sizeBytes: 513, fence: 0 }) },
    ]) {
      const { status, text } = await ask(asked);
      expect(status, JSON.stringify(asked)).toBeGreaterThanOrEqual(400);
      expect(status, JSON.stringify(asked)).toBeLessThan(500);
      expect(text).toMatch(/^\{"(?:code|range)":/);
    }
    const torn = { ...header({ do: 'put', key: 'object' }), 'content-length': '3', 'x-blockferry-crc': '12345678' };
    expect((await ask({ headers: torn, body: filled(3, 2) })).text).toContain('STORE_CORRUPT_TRANSFER');
    expect((await client.get('object', 10))?.bytes[0]).toBe(1);
    expect(lab.events.filter(({ type }) => type === 'fault')).toEqual([]);
    await client.close();
  });

  it(`made by dice is answered or cut off, and the gateway goes on (seed ${SEED})`, { timeout: 60_000 }, async () => {
    await start();
    const dice = new Dice(SEED);
    const { port } = new URL(lab.gateway.url.replace('gateway+', ''));
    const whole = [
      'POST /v1/main/a HTTP/1.1\r\nhost: x\r\n',
      `authorization: Bearer ${TOKEN}\r\n`,
      'content-length: 20\r\nx-blockferry-crc: 00000000\r\n',
      'x-blockferry-call: {"do":"put","key":"logs/1","early":true}\r\n\r\n',
      'x'.repeat(20),
    ].join('');
    for (let i = 0; i < CASES; i += 1) {
      const bytes = Buffer.from(whole, 'latin1');
      for (let n = dice.between(1, 4); n > 0; n -= 1) bytes[dice.below(bytes.byteLength)] = dice.below(256);
      const cut = dice.oneIn(3) ? dice.below(bytes.byteLength) : bytes.byteLength;
      await new Promise<void>((resolve) => {
        const socket = connect(Number(port), '127.0.0.1', () => {
          socket.write(bytes.subarray(0, cut));
          if (dice.oneIn(2)) socket.end();
          else setTimeout(() => socket.destroy(), 5);
        });
        socket.on('data', () => {});
        socket.on('error', () => {});
        socket.on('close', () => resolve());
        socket.setTimeout(50, () => socket.destroy());
      });
    }
    const client = await lab.open('main/a');
    await client.put('object', filled(10, 1));
    expect((await client.get('object', 10))?.bytes[0]).toBe(1);
    expect(lab.events.filter(({ type }) => type === 'fault')).toEqual([]);
    await client.close();
  });
});
