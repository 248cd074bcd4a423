/**
 * A blob service that is infinitely fast: it answers every request at once and throws away what disks consist of. So a run
 * against it measures the sender, not a store.
 *
 * It speaks as much of the protocol as our store and azcopy need: containers, block blobs, page blobs with snapshots, leases and
 * sequence numbers. It keeps what a writer reads again: whole objects (a root, a keyring) and the pages of blobs named
 * `manifest`. The pages of all other blobs, and blocks, go nowhere; reading them gives zeros. No signature, checksum or lease is checked.
 * It is no emulator: nothing of what it accepts says that the real service would.
 *
 * `GET /counts` tells what it has been asked since `DELETE /counts`.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { crc64 } from '../src/chunker/crc64.ts';
import { SparseBytes } from './sparse-bytes.ts';

/** What was asked, by the name of the operation, and how many bytes came with it. */
export interface Counts {
  readonly requests: Readonly<Record<string, number>>;
  readonly bodyBytes: number;
  /** The most requests that were under way at one time. */
  readonly atOnce: number;
  /** From the first write of pages to the answer of the last. */
  readonly writingMs: number;
}

export interface DiscardingServer {
  /** Of the account; containers are made by whoever names them. */
  readonly url: string;
  readonly counts: () => Counts;
  readonly reset: () => void;
  readonly close: () => Promise<void>;
}

interface BlobOf<Type extends string> {
  readonly type: Type;
  etag: string;
}

interface ObjectBlob extends BlobOf<'BlockBlob'> {
  readonly bytes: Buffer;
}

interface DiskBlob extends BlobOf<'PageBlob'> {
  readonly sizeBytes: number;
  sequence: number;
  /** Absent where pages are thrown away. */
  readonly pages: SparseBytes | undefined;
  readonly snapshots: Map<string, SparseBytes | undefined>;
}

type Blob = ObjectBlob | DiskBlob;

/** One request, as far as it was understood. */
interface Call {
  readonly name: string;
  readonly query: URLSearchParams;
  readonly header: (name: string) => string | undefined;
  readonly blob: Blob | undefined;
  /** First and last byte that are meant. */
  readonly range: readonly [number, number] | undefined;
  readonly body: Buffer;
}

interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer | string;
}

const BODY_TIMEOUT_MS = 60_000;
const PAGE_WRITE = 'PUT blob page update';

/** The name of an operation by method and query; what is asked of a container has `restype`. */
function operationOf(method: string, query: URLSearchParams, header: Call['header']): string {
  const thing = query.get('restype') === 'container' ? 'container' : 'blob';
  const detail = query.get('comp') ?? (method === 'PUT' ? header('x-ms-blob-type') : undefined);
  const action = header('x-ms-page-write') ?? header('x-ms-lease-action');
  return [method, thing, detail, action].filter((part) => part !== undefined && part !== null).join(' ');
}

function failed(status: number, code: string): Answer {
  const body = `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`;
  return { status, headers: { 'x-ms-error-code': code, 'content-type': 'application/xml' }, body };
}

function xml(body: string): Answer {
  return {
    status: 200,
    headers: { 'content-type': 'application/xml' },
    body: `<?xml version="1.0" encoding="utf-8"?>${body}`,
  };
}

class Blobs {
  readonly #blobs: Map<string, Blob> = new Map();
  #tick = 0;

  at(name: string): Blob | undefined {
    return this.#blobs.get(name);
  }

  answer(operation: string, call: Call): Answer {
    const { blob } = call;
    if (operation === 'GET container list') return this.#list(call.name, call.query);
    if (operation.includes(' container')) return { status: operation.startsWith('PUT') ? 201 : 200 };
    if (operation === 'PUT blob BlockBlob') return this.#putObject(call);
    if (operation === 'PUT blob PageBlob') return this.#createDisk(call);
    if (operation.startsWith('PUT blob block')) return this.#putBlocks(operation, call);
    if (blob === undefined) return failed(404, 'BlobNotFound');
    if (operation === 'DELETE blob') return this.#remove(call);
    if (operation === 'HEAD blob') return { status: 200, headers: this.#properties(blob) };
    if (operation === 'GET blob') return this.#read(blob, call);
    if (operation === 'PUT blob metadata' || operation === 'PUT blob tags') return this.#done(blob, 200);
    if (operation.startsWith('PUT blob lease')) return this.#lease(operation, blob, call);
    if (blob.type === 'PageBlob') return this.#onDisk(operation, blob, call);
    return failed(400, 'InvalidQueryParameterValue');
  }

  #onDisk(operation: string, blob: DiskBlob, call: Call): Answer {
    const expected = call.header('x-ms-if-sequence-number-eq');
    if (expected !== undefined && Number(expected) !== blob.sequence)
      return failed(412, 'SequenceNumberConditionNotMet');
    const [first, last] = call.range ?? [0, -1];
    if (operation === PAGE_WRITE) {
      blob.pages?.write(first, call.body);
      return this.#done(blob, 201);
    }
    if (operation === 'PUT blob page clear') {
      blob.pages?.clear(first, last + 1 - first);
      return this.#done(blob, 201);
    }
    if (operation === 'PUT blob properties') {
      blob.sequence = Math.max(blob.sequence, Number(call.header('x-ms-blob-sequence-number') ?? 0));
      return this.#done(blob, 200);
    }
    if (operation === 'PUT blob snapshot') {
      const snapshot = `2026-01-01T00:00:00.${String(this.#next()).padStart(7, '0')}Z`;
      blob.snapshots.set(snapshot, blob.pages?.copy());
      return { status: 201, headers: { 'x-ms-snapshot': snapshot, etag: blob.etag } };
    }
    if (operation === 'GET blob pagelist') {
      const pages = this.#pagesOf(blob, call.query);
      const ranges = (pages?.ranges(blob.sizeBytes) ?? []).filter(({ end }) => end >= first);
      const items = ranges.map(({ start, end }) => `<PageRange><Start>${start}</Start><End>${end}</End></PageRange>`);
      return xml(`<PageList>${items.join('')}</PageList>`);
    }
    return failed(400, 'InvalidQueryParameterValue');
  }

  /** A number that was never given before. */
  #next(): number {
    this.#tick += 1;
    return this.#tick;
  }

  #list(container: string, query: URLSearchParams): Answer {
    const from = `${container}/${query.get('prefix') ?? ''}`;
    const withSnapshots = (query.get('include') ?? '').includes('snapshots');
    const names = [...this.#blobs.keys()].filter((name) => name.startsWith(from)).sort();
    const most = Number(query.get('maxresults') ?? Number.POSITIVE_INFINITY);
    const items = names.slice(0, most).flatMap((name) => {
      const blob = this.#blobs.get(name)!;
      const shown = `<Name>${name.slice(container.length + 1)}</Name>`;
      const properties = `<Properties><Etag>${blob.etag}</Etag><BlobType>${blob.type}</BlobType></Properties>`;
      const snapshots = withSnapshots && blob.type === 'PageBlob' ? [...blob.snapshots.keys()] : [];
      return ['', ...snapshots.map((id) => `<Snapshot>${id}</Snapshot>`)].map(
        (snapshot) => `<Blob>${shown}${snapshot}${properties}</Blob>`,
      );
    });
    return xml(`<EnumerationResults><Blobs>${items.join('')}</Blobs><NextMarker /></EnumerationResults>`);
  }

  #putObject(call: Call): Answer {
    const refused = this.#condition(call);
    return refused ?? this.#keep(call.name, { type: 'BlockBlob', etag: '', bytes: call.body });
  }

  /** Blocks go nowhere; the object that they make is there, and empty. */
  #putBlocks(operation: string, call: Call): Answer {
    if (operation === 'PUT blob block') return { status: 201 };
    return this.#keep(call.name, { type: 'BlockBlob', etag: '', bytes: Buffer.alloc(0) });
  }

  #createDisk(call: Call): Answer {
    const refused = this.#condition(call);
    if (refused) return refused;
    const sizeBytes = Number(call.header('x-ms-blob-content-length'));
    const sequence = Number(call.header('x-ms-blob-sequence-number') ?? 0);
    const pages = call.name.endsWith('/manifest') ? new SparseBytes() : undefined;
    return this.#keep(call.name, { type: 'PageBlob', etag: '', sizeBytes, sequence, pages, snapshots: new Map() });
  }

  #condition({ header, blob }: Call): Answer | undefined {
    if (header('if-none-match') === '*' && blob) return failed(409, 'BlobAlreadyExists');
    const etag = header('if-match');
    return etag === undefined || etag === blob?.etag ? undefined : failed(412, 'ConditionNotMet');
  }

  #keep(name: string, blob: Blob): Answer {
    this.#blobs.set(name, blob);
    return this.#done(blob, 201);
  }

  #done(blob: Blob, status: number): Answer {
    blob.etag = `"0x${this.#next().toString(16)}"`;
    return { status, headers: this.#properties(blob) };
  }

  #properties(blob: Blob): Record<string, string> {
    const common = { etag: blob.etag, 'x-ms-blob-type': blob.type, 'accept-ranges': 'bytes' };
    if (blob.type === 'BlockBlob') return common;
    return { ...common, 'x-ms-blob-sequence-number': String(blob.sequence) };
  }

  #read(blob: Blob, { query, range, header }: Call): Answer {
    const sizeBytes = sizeOf(blob);
    const [first, asked] = range ?? [0, sizeBytes - 1];
    const last = Math.min(asked, sizeBytes - 1);
    if (range && first > last) return failed(416, 'InvalidRange');
    const body =
      blob.type === 'BlockBlob'
        ? blob.bytes.subarray(first, last + 1)
        : (this.#pagesOf(blob, query)?.read(first, last + 1 - first) ?? Buffer.alloc(last + 1 - first));
    const headers = this.#properties(blob);
    if (range) headers['content-range'] = `bytes ${first}-${last}/${sizeBytes}`;
    if (header('x-ms-range-get-content-md5') === 'true')
      headers['content-md5'] = createHash('md5').update(body).digest('base64');
    if (header('x-ms-range-get-content-crc64') === 'true')
      headers['x-ms-content-crc64'] = crc64(body).toString('base64');
    return { status: range ? 206 : 200, headers, body };
  }

  #pagesOf(blob: DiskBlob, query: URLSearchParams): SparseBytes | undefined {
    const snapshot = query.get('snapshot');
    return snapshot === null ? blob.pages : blob.snapshots.get(snapshot);
  }

  #lease(operation: string, blob: Blob, { header }: Call): Answer {
    const id = header('x-ms-proposed-lease-id') ?? header('x-ms-lease-id') ?? '';
    return { status: operation.endsWith('acquire') ? 201 : 200, headers: { etag: blob.etag, 'x-ms-lease-id': id } };
  }

  #remove({ name, query, blob }: Call): Answer {
    const snapshot = query.get('snapshot');
    if (snapshot === null) this.#blobs.delete(name);
    else if (blob?.type === 'PageBlob') blob.snapshots.delete(snapshot);
    return { status: 202 };
  }
}

function sizeOf(blob: Blob): number {
  return blob.type === 'BlockBlob' ? blob.bytes.byteLength : blob.sizeBytes;
}

/** Whether somebody will ask for what this request carries. */
function isKept(operation: string, name: string): boolean {
  return operation === PAGE_WRITE ? name.endsWith('/manifest') : operation === 'PUT blob BlockBlob';
}

/** Takes the body of a request: into memory where it is kept, else nowhere. */
async function bodyOf(request: IncomingMessage, kept: boolean): Promise<{ bytes: Buffer; lengthBytes: number }> {
  const pieces: Buffer[] = [];
  let lengthBytes = 0;
  request.on('data', (piece: Buffer) => {
    lengthBytes += piece.byteLength;
    if (kept) pieces.push(piece);
  });
  await new Promise<void>((resolve, reject) => request.once('end', resolve).once('error', reject));
  return { bytes: Buffer.concat(pieces), lengthBytes };
}

function send(
  response: ServerResponse,
  { status, headers = {}, body = '' }: Answer,
  headOnly: number | undefined,
): void {
  const lengthBytes = headOnly ?? Buffer.byteLength(body);
  const common = {
    'x-ms-request-id': '0',
    'x-ms-version': '2025-01-05',
    'last-modified': 'Thu, 01 Jan 2026 00:00:00 GMT',
  };
  response.writeHead(status, { ...common, ...headers, 'content-length': lengthBytes });
  response.end(headOnly === undefined ? body : undefined);
}

/** How many writes of pages shall be under way at one time before any is answered, and how long the last of them waits for the next. */
export interface Gathering {
  readonly writes: number;
  readonly waitMs: number;
}

/** Holds writes back until so many have come, or no more come; from then on, if they have come, it holds none. */
function gatherer({ writes, waitMs }: Gathering): () => Promise<void> {
  let waiting: (() => void)[] = [];
  let gathered = false;
  let timer: NodeJS.Timeout | undefined;
  const release = (): void => {
    for (const go of waiting) go();
    waiting = [];
  };
  return async () => {
    if (gathered) return;
    await new Promise<void>((go) => {
      waiting.push(go);
      clearTimeout(timer);
      gathered = waiting.length >= writes;
      if (gathered) release();
      else timer = setTimeout(release, waitMs);
    });
  };
}

/** Serves an account on a free port of the loopback. */
export async function startDiscardingServer(gathering?: Gathering): Promise<DiscardingServer> {
  const blobs = new Blobs();
  const gather = gathering && gatherer(gathering);
  const requests = new Map<string, number>();
  let [bodyBytes, underWay, atOnce] = [0, 0, 0];
  let [firstWriteMs, lastWriteMs] = [Number.NaN, 0];
  const reset = (): void => {
    requests.clear();
    [bodyBytes, atOnce, firstWriteMs, lastWriteMs] = [0, underWay, Number.NaN, 0];
  };
  const counts = (): Counts => {
    const writingMs = Number.isNaN(firstWriteMs) ? 0 : Math.round(lastWriteMs - firstWriteMs);
    return { requests: Object.fromEntries([...requests].sort()), bodyBytes, atOnce, writingMs };
  };

  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '/', 'http://localhost');
    if (url.pathname === '/counts') {
      if (request.method === 'DELETE') reset();
      return send(response, { status: 200, body: JSON.stringify(counts()) }, undefined);
    }
    const method = request.method ?? 'GET';
    const header = (name: string): string | undefined => request.headers[name] as string | undefined;
    const operation = operationOf(method, url.searchParams, header);
    requests.set(operation, (requests.get(operation) ?? 0) + 1);
    if (operation === PAGE_WRITE && Number.isNaN(firstWriteMs)) firstWriteMs = performance.now();
    underWay += 1;
    atOnce = Math.max(atOnce, underWay);
    try {
      // Behind the account: the container, and the blob in it.
      const name = decodeURIComponent(url.pathname.split('/').slice(2).join('/'));
      const { bytes: body, lengthBytes } = await bodyOf(request, isKept(operation, name));
      bodyBytes += lengthBytes;
      if (operation === PAGE_WRITE) await gather?.();
      const found = /^bytes=(\d+)-(\d*)$/.exec(header('x-ms-range') ?? header('range') ?? '');
      const range = found ? ([Number(found[1]), Number(found[2] || Number.MAX_SAFE_INTEGER)] as const) : undefined;
      const blob = blobs.at(name);
      const answer = blobs.answer(operation, { name, query: url.searchParams, header, blob, range, body });
      send(response, answer, method === 'HEAD' && blob ? sizeOf(blob) : undefined);
    } finally {
      underWay -= 1;
      if (operation === PAGE_WRITE) lastWriteMs = performance.now();
    }
  };

  const server = createServer((request, response) => {
    serve(request, response).catch(() => response.destroy());
  });
  server.requestTimeout = BODY_TIMEOUT_MS;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const close = async (): Promise<void> => {
    server.closeAllConnections();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  };
  return { url: `http://127.0.0.1:${port}/devstoreaccount1`, counts, reset, close };
}
