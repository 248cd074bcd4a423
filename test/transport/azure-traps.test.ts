/**
 * The traps of the blob service and its SDK, each with a test: against a scripted server where the emulator does not tell
 * the truth (docs/transport.md has the table).
 */
import { createHash } from 'node:crypto';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { crc64 } from '../../src/chunker/crc64.ts';
import { type BlockferryError, type ErrorCode, toWire } from '../../src/errors.ts';
import { nodePorts } from '../../src/host/index.ts';
import { mayStillApply, openStore, type PageBlob, type Store } from '../../src/transport/index.ts';
import { freePort } from '../support/azurite.ts';
import { type Answer, type ScriptedServer, serviceError, startScriptedServer } from '../support/scripted-server.ts';
import { collectAll, filled } from './contract.ts';

const MIB = 1024 * 1024;
const TIMEOUT_MS = 1500;
const SECRET = 'c2VjcmV0LXNpZ25hdHVyZQ%3D%3D';
const SAS = `sv=2024-01-01&sp=rwdl&se=2030-01-01&sig=${SECRET}`;
const GUARD = { fence: 1 };
const PROPERTIES: Answer = {
  status: 200,
  headers: {
    'x-ms-blob-type': 'PageBlob',
    'x-ms-blob-sequence-number': '1',
    'x-ms-blob-content-length': String(8 * MIB),
    'content-length': String(8 * MIB),
  },
};
const CREATED: Answer = { status: 201, headers: { 'x-ms-blob-sequence-number': '1' } };

let server: ScriptedServer;
let store: Store;
let blob: PageBlob;

beforeEach(async () => {
  server = await startScriptedServer();
  store = await open(server.origin);
  blob = store.pages('base');
  server.otherwise = CREATED;
});
afterEach(async () => {
  await store.close();
  await server.close();
});

function open(origin: string, attemptTimeoutMs = TIMEOUT_MS): Promise<Store> {
  return openStore(`${origin}/account/container?${SAS}`, { ports: nodePorts(), attemptTimeoutMs });
}

/** A blob that knows its size, so that the next step of the script answers the request under test. */
async function known(): Promise<void> {
  server.script.push(PROPERTIES);
  await blob.state();
  server.requests.length = 0;
}

function checksum(bytes: Uint8Array): string {
  return crc64(bytes).toString('base64');
}

async function failure(work: Promise<unknown>): Promise<BlockferryError> {
  return await work.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: BlockferryError) => error,
  );
}

describe('answers of the service', () => {
  const rows: readonly [number, string, ErrorCode, boolean, boolean][] = [
    // status, service code, our code, retryable, may still apply
    [400, 'Md5Mismatch', 'STORE_CORRUPT_TRANSFER', true, false],
    [400, 'Crc64Mismatch', 'STORE_CORRUPT_TRANSFER', true, false],
    [500, 'FeatureNotSupported', 'STORE_REFUSED', false, false],
    [400, 'InvalidHeaderValue', 'STORE_REFUSED', false, false],
    [401, 'NoAuthenticationInformation', 'STORE_AUTHENTICATION', false, false],
    [403, 'AuthenticationFailed', 'STORE_AUTHENTICATION', false, false],
    [403, 'AuthorizationPermissionMismatch', 'STORE_AUTHENTICATION', false, false],
    [404, 'BlobNotFound', 'STORE_NOT_FOUND', false, false],
    [404, 'ContainerNotFound', 'STORE_NOT_FOUND', false, false],
    [408, 'RequestTimeout', 'STORE_TIMEOUT', true, true],
    [409, 'LeaseAlreadyPresent', 'REPLICA_LEASED', false, false],
    [409, 'BlobAlreadyExists', 'STORE_CONDITION', false, false],
    [409, 'ContainerBeingDeleted', 'STORE_REFUSED', true, false],
    [409, 'SnapshotOperationRateExceeded', 'STORE_THROTTLED', true, false],
    [412, 'SequenceNumberConditionNotMet', 'REPLICA_FENCED', false, false],
    [412, 'LeaseIdMissing', 'REPLICA_LEASED', false, false],
    [412, 'LeaseLost', 'REPLICA_LEASED', false, false],
    [412, 'ConditionNotMet', 'STORE_CONDITION', false, false],
    [429, 'TooManyRequests', 'STORE_THROTTLED', true, false],
    [500, 'OperationTimedOut', 'STORE_THROTTLED', true, true],
    [500, 'InternalError', 'STORE_UNREACHABLE', true, true],
    [502, 'BadGateway', 'STORE_UNREACHABLE', true, true],
    [503, 'ServerBusy', 'STORE_THROTTLED', true, false],
    [504, 'GatewayTimeout', 'STORE_UNREACHABLE', true, true],
  ];

  it.each(rows)('%i %s is %s', async (status, serviceCode, code, retryable, unknown) => {
    await known();
    server.script.push(serviceError(status, serviceCode));
    const error = await failure(blob.write(filled(512, 1), 0, GUARD));
    expect(error).toMatchObject({ code, retryable, facts: { status, serviceCode, requestId: 'request-1' } });
    expect(mayStillApply(error)).toBe(unknown);
    expect(server.requests).toHaveLength(1);
    if (code === 'STORE_AUTHENTICATION') expect(error.hint).toBeDefined();
  });

  it('a 503 of something in between leaves the outcome open', async () => {
    await known();
    server.script.push({ status: 503, body: '<html>busy</html>' });
    const error = await failure(blob.write(filled(512, 1), 0, GUARD));
    expect(error).toMatchObject({ code: 'STORE_THROTTLED' });
    expect(mayStillApply(error)).toBe(true);
  });

  it.each([
    ['retry-after', '7', 7000],
    ['x-ms-retry-after-ms', '250', 250],
    ['retry-after', '-1', undefined],
    ['retry-after', 'soon', undefined],
  ])('%s: %s is %s ms', async (header, value, expected) => {
    await known();
    server.script.push(serviceError(503, 'ServerBusy', { [header]: value }));
    const error = await failure(blob.write(filled(512, 1), 0, GUARD));
    expect(error.facts['retryAfterMs']).toBe(expected);
  });

  it('never repeat a SAS, in message, facts, cause or print', async () => {
    await known();
    const steps = [
      serviceError(403, 'AuthenticationFailed'),
      serviceError(500, 'InternalError'),
      'reset',
      'stall',
      { status: 200, body: '<not xml' },
    ] as const;
    for (const step of steps) {
      server.script.push(step);
      const error = await failure(collectAll(store.list('x')));
      const printed = inspect(error, { depth: 10, showHidden: true }) + JSON.stringify(toWire(error)) + error.stack;
      expect(printed).not.toContain('sig=');
      expect(printed).not.toContain('c2VjcmV0');
    }
    expect(store.url).toBe(`${server.origin}/account/container`);
  });
});

describe('connections', () => {
  it('a stalled socket ends in a timeout, for every kind of request', async () => {
    await known();
    const staged = store.stage('b', 10);
    await staged.put(0, filled(10, 1));
    server.otherwise = 'stall';
    const calls: readonly (() => Promise<unknown>)[] = [
      () => blob.write(filled(512, 1), 0, GUARD),
      () => blob.clear(0, 512, GUARD),
      () => blob.read(0, 512),
      () => blob.state(),
      () => blob.snapshot(GUARD),
      () => blob.snapshots(),
      () => blob.raiseFence(2, undefined),
      () => blob.acquireLease('6c1a5b1e-0d53-4d5c-9a53-2f1d7f1f0a01', 15),
      () => collectAll(blob.ranges()),
      () => store.get('a', 10),
      () => store.put('a', filled(10, 1)),
      () => store.delete('a'),
      () => store.read('a', 0, 10),
      () => store.stage('a', 10).put(0, filled(10, 1)),
      () => staged.commit(1),
      () => store.prepare(),
      () => collectAll(store.list('')),
    ];
    const results = await Promise.all(calls.map((call) => failure(call())));
    for (const error of results) expect(error).toMatchObject({ code: 'STORE_TIMEOUT', retryable: true });
  });

  it('a body that stalls ends in a timeout', async () => {
    await known();
    const body = filled(64 * 1024, 1);
    const headers = { 'content-range': `bytes 0-${body.byteLength - 1}/${8 * MIB}` };
    server.script.push({ stallAfterHeaders: { status: 206, body, headers } });
    expect(await failure(blob.read(0, body.byteLength))).toMatchObject({ code: 'STORE_TIMEOUT' });
  });

  it('a reset leaves the outcome open, a refused connection does not', async () => {
    await known();
    server.script.push('reset');
    const reset = await failure(blob.write(filled(512, 1), 0, GUARD));
    expect(reset).toMatchObject({ code: 'STORE_UNREACHABLE', retryable: true });
    expect(mayStillApply(reset)).toBe(true);

    const nobody = (await open(`http://127.0.0.1:${await freePort()}`, 5000)).pages('base');
    const refused = await failure(nobody.state());
    expect(refused).toMatchObject({ code: 'STORE_UNREACHABLE', retryable: true });
    expect(mayStillApply(refused)).toBe(false);
    expect(refused.hint).toBeDefined();
  });

  it('an abort ends a stalled request at once, and leaves the outcome open', async () => {
    await known();
    server.otherwise = 'stall';
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 20);
    const startedMs = performance.now();
    const error = await failure(blob.write(filled(512, 1), 0, GUARD, { signal: controller.signal }));
    expect(error).toMatchObject({ code: 'ABORTED' });
    expect(mayStillApply(error)).toBe(true);
    expect(performance.now() - startedMs).toBeLessThan(TIMEOUT_MS);
  });

  it('the SDK does not retry behind our back', async () => {
    await known();
    for (const step of [serviceError(503, 'ServerBusy'), serviceError(500, 'InternalError'), 'reset'] as const) {
      server.requests.length = 0;
      server.script.push(step);
      await failure(blob.write(filled(512, 1), 0, GUARD));
      expect(server.requests).toHaveLength(1);
    }
  });
});

describe('what is sent', () => {
  it('a page write is one request with its checksum and the fence, its bytes as they are', async () => {
    await known();
    const memory = new Uint8Array(2048).map((_, i) => i & 0xff);
    await blob.write(memory.subarray(512, 1536), 4096, { fence: 1, leaseId: '6c1a5b1e-0d53-4d5c-9a53-2f1d7f1f0a01' });
    const [request] = server.requests;
    expect(request?.body.equals(memory.subarray(512, 1536))).toBe(true);
    expect(request?.headers).toMatchObject({
      'x-ms-range': 'bytes=4096-5119',
      'x-ms-page-write': 'update',
      'x-ms-if-sequence-number-eq': '1',
      'x-ms-lease-id': '6c1a5b1e-0d53-4d5c-9a53-2f1d7f1f0a01',
      'x-ms-content-crc64': checksum(memory.subarray(512, 1536)),
    });
    expect(request?.headers['content-md5']).toBeUndefined();
  });

  it('nothing above 4 MiB, across the end or off 512 is sent at all', async () => {
    await known();
    await expect(blob.write(filled(4 * MIB + 512, 1), 0, GUARD)).rejects.toThrow(RangeError);
    await expect(blob.write(filled(1024, 1), 8 * MIB - 512, GUARD)).rejects.toThrow(RangeError);
    await expect(blob.clear(8 * MIB - 512, 1024, GUARD)).rejects.toThrow(RangeError);
    await expect(blob.write(filled(512, 1), 100, GUARD)).rejects.toThrow(RangeError);
    expect(server.requests).toHaveLength(0);
  });

  it('raising the fence uses the action that is safe to repeat', async () => {
    server.otherwise = { status: 200, headers: { 'x-ms-blob-sequence-number': '9' } };
    await blob.raiseFence(9, undefined);
    expect(server.requests[0]?.headers).toMatchObject({
      'x-ms-sequence-number-action': 'max',
      'x-ms-blob-sequence-number': '9',
    });
  });

  it('a snapshot is bound to the fence it was asked with', async () => {
    server.script.push(PROPERTIES, { status: 201, headers: { 'x-ms-snapshot': '2026-01-01T00:00:00.0000000Z' } });
    await blob.snapshot(GUARD);
    expect(server.requests[1]?.headers['if-match']).toBe('"0x1"');
    server.script.push(PROPERTIES, serviceError(412, 'ConditionNotMet'));
    expect(await failure(blob.snapshot(GUARD))).toMatchObject({ code: 'STORE_CONDITION', retryable: true });
    server.script.push(PROPERTIES);
    expect(await failure(blob.snapshot({ fence: 2 }))).toMatchObject({ code: 'REPLICA_FENCED' });
  });

  it('a page write has the checksum that its caller made, else one that is made here', async () => {
    await known();
    const [bytes, theirs] = [filled(512, 1), filled(8, 2)];
    await blob.write(bytes, 0, GUARD, { crc64: theirs });
    await blob.write(bytes, 0, GUARD);
    const sent = server.requests.map(({ headers }) => headers['x-ms-content-crc64']);
    expect(sent).toEqual([Buffer.from(theirs).toString('base64'), checksum(bytes)]);
    expect(store.sendsCrc64).toBe(true);
  });

  it('a part is one request with its checksum, the commit one with all ids in order', async () => {
    const staged = store.stage('logs/1', 1024);
    const bytes = Uint8Array.from({ length: 3000 }, (_, i) => i & 0xff);
    for (const i of [2, 0, 1]) await staged.put(i, bytes.subarray(i * 1024, (i + 1) * 1024));
    await staged.commit(3);
    const [c, a, b, list] = server.requests;
    expect(server.requests).toHaveLength(4);
    const ids = [a, b, c].map((request) => new URL(request!.url, server.origin).searchParams.get('blockid')!);
    expect(new Set(ids.map((id) => Buffer.from(id, 'base64').byteLength))).toEqual(new Set([20]));
    for (const [i, request] of [a, b, c].entries()) {
      const part = bytes.subarray(i * 1024, (i + 1) * 1024);
      expect(request?.body.equals(part)).toBe(true);
      expect(request?.headers['x-ms-content-crc64']).toBe(checksum(part));
    }
    const latest = [...list!.body.toString().matchAll(/<Latest>([^<]*)<\/Latest>/g)].map(([, id]) => id);
    expect(latest).toEqual(ids);

    server.requests.length = 0;
    await store.stage('logs/1', 1024).put(0, filled(1, 1));
    const other = new URL(server.requests[0]!.url, server.origin).searchParams.get('blockid')!;
    expect(ids.some((id) => id.slice(0, 20) === other.slice(0, 20))).toBe(false);
  });

  it('a list with blocks that are gone is no commit, and not tried again', async () => {
    const staged = store.stage('logs/1', 1024);
    await staged.put(0, filled(1, 1));
    server.script.push(serviceError(400, 'InvalidBlockList'));
    const error = await failure(staged.commit(1));
    expect(error).toMatchObject({ code: 'STORE_CONDITION', retryable: false });
    expect(mayStillApply(error)).toBe(false);
    expect(error.hint).toBeDefined();
  });

  it('a container is created only if listing says that it is missing', async () => {
    server.script.push(serviceError(404, 'ContainerNotFound'), CREATED);
    await store.prepare();
    expect(server.requests.map(({ method, url }) => `${method} ${url.includes('comp=list')}`)).toEqual([
      'GET true',
      'PUT false',
    ]);
  });
});

describe('what is received', () => {
  const body = filled(4096, 7);

  function part(headers: Readonly<Record<string, string>> = {}): Answer {
    return {
      status: 206,
      body,
      headers: { 'x-ms-content-crc64': checksum(body), 'content-range': `bytes 0-4095/${8 * MIB}`, ...headers },
    };
  }

  it('a read asks for a checksum and checks it', async () => {
    await known();
    server.script.push(part());
    expect(Buffer.from(await blob.read(0, 4096)).equals(body)).toBe(true);
    expect(server.requests[0]?.headers).toMatchObject({ 'x-ms-range-get-content-crc64': 'true' });
    expect(server.requests[0]?.headers['x-ms-range-get-content-md5']).not.toBe('true');
    for (const headers of [{ 'x-ms-content-crc64': checksum(Buffer.alloc(4096)) }, { 'x-ms-content-crc64': '' }]) {
      server.script.push(part(headers));
      const error = await failure(blob.read(0, 4096));
      expect(error).toMatchObject({ code: 'STORE_CORRUPT_TRANSFER', retryable: true });
    }
  });

  it('a body that is cut, short or long is damage, not data', async () => {
    await known();
    server.script.push({ truncate: part() });
    expect(await failure(blob.read(0, 4096))).toMatchObject({ retryable: true });
    server.script.push({ endEarly: part() });
    expect(await failure(blob.read(0, 4096))).toMatchObject({ retryable: true });
    expect(server.requests).toHaveLength(2);
    server.script.push({ ...part(), body: body.subarray(0, 4095) });
    expect(await failure(blob.read(0, 4096))).toMatchObject({ code: 'STORE_CORRUPT_TRANSFER' });
    server.script.push({ ...part(), body: filled(4097, 7) });
    expect(await failure(blob.read(0, 4096))).toMatchObject({ code: 'STORE_CORRUPT_TRANSFER' });
  });

  it('the body of an error is not waited for', async () => {
    await known();
    server.script.push({ stallAfterHeaders: serviceError(412, 'SequenceNumberConditionNotMet') });
    expect(await failure(blob.write(filled(512, 1), 0, GUARD))).toMatchObject({ code: 'REPLICA_FENCED' });
    server.script.push({ stallAfterHeaders: serviceError(404, 'BlobNotFound') });
    expect(await failure(blob.read(0, 512))).toMatchObject({ code: 'STORE_NOT_FOUND' });
  });

  it('a large read is one request per 4 MiB', async () => {
    await known();
    const half = filled(4 * MIB, 1);
    for (const range of ['bytes 0-4194303/8388608', 'bytes 4194304-8388607/8388608']) {
      server.script.push({
        status: 206,
        body: half,
        headers: { 'x-ms-content-crc64': checksum(half), 'content-range': range },
      });
    }
    expect((await blob.read(0, 8 * MIB)).byteLength).toBe(8 * MIB);
    expect(server.requests).toHaveLength(2);
  });

  it('a range of another place, of no place, or the whole blob instead, is damage', async () => {
    await known();
    for (const range of [`bytes 512-4607/${8 * MIB}`, `bytes 0-4094/${8 * MIB}`, 'bytes */8388608', '']) {
      server.script.push(part({ 'content-range': range }));
      expect(await failure(blob.read(0, 4096))).toMatchObject({ code: 'STORE_CORRUPT_TRANSFER', retryable: true });
      server.script.push(part({ 'content-range': range }));
      const read = store.read('logs/1', 0, 4096);
      expect(await failure(read)).toMatchObject({ code: 'STORE_CORRUPT_TRANSFER', retryable: true });
    }
    server.script.push(part({ 'content-range': 'bytes 0-4095/4000' }));
    expect(await failure(blob.read(0, 4096))).toMatchObject({ code: 'STORE_CORRUPT_TRANSFER' });
  });

  it('the pieces of an object are of one version: the first names it for the rest', async () => {
    const size = 4 * MIB + 100;
    const piece = (bytes: Uint8Array, from: number): Answer => {
      const range = `bytes ${from}-${from + bytes.byteLength - 1}/${size}`;
      const headers = { etag: '"0x7"', 'x-ms-content-crc64': checksum(bytes), 'content-range': range };
      return { status: 206, body: bytes, headers };
    };
    const [first, rest] = [piece(filled(4 * MIB, 1), 0), piece(filled(100, 2), 4 * MIB)];
    server.script.push(first, rest);
    expect((await store.read('logs/1', 0, size)).byteLength).toBe(size);
    expect(server.requests.map(({ headers }) => headers['if-match'])).toEqual([undefined, '"0x7"']);
    server.script.push(first, serviceError(412, 'ConditionNotMet'));
    expect(await failure(store.read('logs/1', 0, size))).toMatchObject({ code: 'STORE_CONDITION', retryable: true });
  });

  it('an object that ends before the range is a wrong argument, told without its body', async () => {
    server.script.push(part({ 'content-range': 'bytes 0-4095/4096' }));
    await expect(store.read('logs/1', 0, 4097)).rejects.toThrow(RangeError);
    server.script.push(serviceError(416, 'InvalidRange'));
    await expect(store.read('logs/1', 5000, 1)).rejects.toThrow(RangeError);
  });

  it('an object that is longer than allowed is refused before its body is read', async () => {
    server.script.push({ status: 200, body: filled(1000, 1) });
    expect(await failure(store.get('root', 999))).toMatchObject({ code: 'STORE_REFUSED', retryable: false });
  });

  it('an object whose checksum does not match is damage', async () => {
    server.script.push({ status: 200, body, headers: { 'content-md5': createHash('md5').digest('base64') } });
    expect(await failure(store.get('root', 10_000))).toMatchObject({ code: 'STORE_CORRUPT_TRANSFER' });
  });

  function pageList(ranges: readonly (readonly [number, number])[], marker = ''): Answer {
    const list = ranges.map(([start, end]) => `<PageRange><Start>${start}</Start><End>${end}</End></PageRange>`);
    const xml = `<?xml version="1.0" encoding="utf-8"?><PageList>${list.join('')}<NextMarker>${marker}</NextMarker></PageList>`;
    return { status: 200, body: xml, headers: { 'content-type': 'application/xml' } };
  }

  it('range lists are followed over all their pages, ends included, neighbours joined', async () => {
    await known();
    server.script.push(
      pageList(
        [
          [0, 511],
          [512, 1023],
        ],
        'm1',
      ),
      pageList(
        [
          [1024, 1535],
          [4096, 4607],
        ],
        'm2',
      ),
      pageList([]),
    );
    expect(await collectAll(blob.ranges())).toEqual([
      { offset: 0, lengthBytes: 1536 },
      { offset: 4096, lengthBytes: 512 },
    ]);
    expect(server.requests.map(({ url }) => /marker=(m\d)/.exec(url)?.[1])).toEqual([undefined, 'm1', 'm2']);
  });

  it.each([
    [
      [
        [512, 1023],
        [0, 511],
      ],
    ],
    [[[0, 8 * MIB]]],
    [[[1024, 511]]],
    [
      [
        [0, 1023],
        [512, 2047],
      ],
    ],
  ] as const)('a range list that is out of order or outside is damage: %j', async (ranges) => {
    await known();
    server.script.push(pageList(ranges));
    expect(await failure(collectAll(blob.ranges()))).toMatchObject({ code: 'STORE_CORRUPT_TRANSFER' });
  });

  it('a block blob where a page blob should be is refused', async () => {
    server.script.push({ status: 200, headers: { ...PROPERTIES.headers, 'x-ms-blob-type': 'BlockBlob' } });
    expect(await failure(blob.state())).toMatchObject({ code: 'STORE_REFUSED' });
  });
});

describe('to an emulator', () => {
  it('a checksum is an MD5, sent and asked for', async () => {
    const emulator = `${server.origin}/devstoreaccount1/container`;
    const pages = (await openStore(emulator, { ports: nodePorts(), attemptTimeoutMs: TIMEOUT_MS })).pages('base');
    server.script.push(PROPERTIES);
    const bytes = filled(512, 1);
    const md5 = createHash('md5').update(bytes).digest('base64');
    await pages.write(bytes, 0, GUARD);
    expect(server.requests[1]?.headers).toMatchObject({ 'content-md5': md5 });
    expect(server.requests[1]?.headers).not.toHaveProperty('x-ms-content-crc64');
    const range = { 'content-range': 'bytes 0-511/8388608' };
    server.script.push({ status: 206, body: bytes, headers: { ...range, 'content-md5': md5 } });
    expect((await pages.read(0, 512))[0]).toBe(1);
    expect(server.requests[2]?.headers).toMatchObject({ 'x-ms-range-get-content-md5': 'true' });
    server.script.push({ status: 206, body: filled(512, 2), headers: { ...range, 'content-md5': md5 } });
    expect(await failure(pages.read(0, 512))).toMatchObject({ code: 'STORE_CORRUPT_TRANSFER' });
  });
});

describe('without a transport checksum', () => {
  it('no checksum is computed, asked for or checked', async () => {
    const options = { ports: nodePorts(), attemptTimeoutMs: TIMEOUT_MS, transportChecksum: 'none' } as const;
    const plain = (await openStore(`${server.origin}/account/container?${SAS}`, options)).pages('base');
    server.script.push(PROPERTIES);
    await plain.write(filled(512, 1), 0, GUARD);
    expect(server.requests[1]?.headers).not.toHaveProperty('x-ms-content-crc64');
    expect(server.requests[1]?.headers).not.toHaveProperty('content-md5');
    server.script.push({ status: 206, body: filled(512, 1), headers: { 'content-range': 'bytes 0-511/8388608' } });
    expect((await plain.read(0, 512))[0]).toBe(1);
    expect(server.requests[2]?.headers['x-ms-range-get-content-crc64']).not.toBe('true');
    expect(server.requests[2]?.headers['x-ms-range-get-content-md5']).not.toBe('true');
    await (await openStore(`${server.origin}/account/container?${SAS}`, options)).stage('a', 10).put(0, filled(1, 1));
    expect(server.requests[3]?.headers).not.toHaveProperty('x-ms-content-crc64');
    expect(server.requests[3]?.headers).not.toHaveProperty('content-md5');
  });
});
