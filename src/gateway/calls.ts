/** The calls of clients, one by one, on the store of their replica: arguments in, fields and bytes out. */
import { asBuffer } from '../bytes.ts';
import { GATEWAY_BODY_BYTES_MAX, GATEWAY_LIST_BYTES_MAX, GATEWAY_LIST_ITEMS_MAX } from '../limits.ts';
import type {
  CallOptions,
  GatewayCall,
  GatewayFields,
  IncomingCall,
  Store,
  StoredObject,
  WriteGuard,
} from '../transport/index.ts';
import type { StagingName, Stagings } from './stagings.ts';

/** A call with what it runs on. */
export interface CallContext {
  readonly call: IncomingCall;
  readonly body: Uint8Array;
  readonly place: string;
  readonly store: Store;
  readonly stagings: Stagings;
  readonly signal: AbortSignal;
}

export interface CallAnswer {
  readonly fields: GatewayFields;
  readonly bytes?: Uint8Array;
}

type Handler = (context: CallContext, options: CallOptions) => Promise<CallAnswer>;

const DONE: CallAnswer = { fields: {} };

/** For calls that return nothing. */
const doing =
  (act: (context: CallContext, options: CallOptions) => Promise<void>): Handler =>
  async (context, options) => {
    await act(context, options);
    return DONE;
  };

const pagesOf = ({ store, call }: CallContext) => store.pages(call.text('key'));

const HANDLERS: { readonly [Call in GatewayCall]: Handler } = {
  prepare: doing(({ store }, options) => store.prepare(options)),
  get: async ({ store, call }, options) => object(await store.get(call.text('key'), bytesMax(call), options)),
  settled: async ({ store, call }, options) => {
    const { settled } = store;
    const read = settled ?? store.get;
    return object(await read.call(store, call.text('key'), bytesMax(call), options));
  },
  put: async ({ store, call, body }, options) => {
    const ifMatch = call.isNull('ifMatch') ? null : call.optionalText('ifMatch');
    const condition = ifMatch === undefined ? {} : { ifMatch };
    const early = call.isTrue('early');
    return { fields: { etag: await store.put(call.text('key'), body, { ...options, ...condition, early }) } };
  },
  read: async ({ store, call }, options) => {
    const sizeBytes = call.optionalInteger('sizeBytes');
    const size = sizeBytes === undefined ? {} : { sizeBytes };
    const [offset, lengthBytes] = [call.integer('offset'), readable(call)];
    return { fields: {}, bytes: await store.read(call.text('key'), offset, lengthBytes, { ...options, ...size }) };
  },
  delete: doing(({ store, call }, options) => store.delete(call.text('key'), options)),
  list: ({ store, call }, options) => {
    const after = call.optionalText('after');
    return page(keysAfter(store.list(call.text('prefix'), options), after), (key) => key);
  },
  'stage-put': doing(async ({ store, stagings, place, call, body }, options) => {
    const object = await stagings.begin(store, stagingName(place, call));
    await object.put(call.integer('index'), body, options);
  }),
  'stage-commit': doing(({ stagings, place, call }, options) =>
    stagings.commit(stagingName(place, call), (object) => object.commit(call.integer('parts'), options)),
  ),
  'stage-abort': doing(({ stagings, place, call }) => stagings.abort(stagingName(place, call))),
  'pages-create': doing((context, options) => {
    const { call } = context;
    return pagesOf(context).create(call.integer('sizeBytes'), call.integer('fence'), options);
  }),
  'pages-state': async (context, options) => {
    const state = await pagesOf(context).state(options);
    return { fields: state ? { exists: true, ...state } : { exists: false } };
  },
  'pages-write': doing((context, options) => {
    const { call, body } = context;
    return pagesOf(context).write(body, call.integer('offset'), guardOf(call), options);
  }),
  'pages-clear': doing((context, options) => {
    const { call } = context;
    const [offset, lengthBytes] = [call.integer('offset'), call.integer('lengthBytes')];
    return pagesOf(context).clear(offset, lengthBytes, guardOf(call), options);
  }),
  'pages-read': async (context, options) => {
    const { call } = context;
    const [offset, lengthBytes] = [call.integer('offset'), readable(call)];
    return { fields: {}, bytes: await pagesOf(context).read(offset, lengthBytes, { ...options, ...snapshotOf(call) }) };
  },
  'pages-ranges': (context, options) => {
    const { call } = context;
    const fromOffset = call.optionalInteger('fromOffset') ?? 0;
    const ranges = pagesOf(context).ranges({ ...options, ...snapshotOf(call), fromOffset });
    return page(ranges, ({ offset, lengthBytes }) => [offset, lengthBytes]);
  },
  'pages-flush': doing((context, options) => pagesOf(context).flush(options)),
  'pages-snapshot': async (context, options) => {
    return { fields: { snapshot: await pagesOf(context).snapshot(guardOf(context.call), options) } };
  },
  'pages-delete-snapshot': doing((context, options) =>
    pagesOf(context).deleteSnapshot(context.call.text('snapshot'), options),
  ),
  'pages-snapshots': async (context, options) => {
    const bytes = Buffer.from(JSON.stringify(await pagesOf(context).snapshots(options)));
    if (bytes.byteLength > GATEWAY_LIST_BYTES_MAX) throw new RangeError('there are too many snapshots for one answer');
    return { fields: { more: false }, bytes };
  },
  'pages-raise-fence': doing((context, options) => {
    const { call } = context;
    return pagesOf(context).raiseFence(call.integer('fence'), call.optionalText('leaseId'), options);
  }),
  'pages-acquire-lease': doing((context, options) => {
    const { call } = context;
    return pagesOf(context).acquireLease(call.text('leaseId'), call.integer('durationSeconds'), options);
  }),
  'pages-renew-lease': doing((context, options) => pagesOf(context).renewLease(context.call.text('leaseId'), options)),
  'pages-release-lease': doing((context, options) =>
    pagesOf(context).releaseLease(context.call.text('leaseId'), options),
  ),
  'pages-remove': doing((context, options) => pagesOf(context).remove(context.call.optionalText('leaseId'), options)),
};

/** Runs a call. @throws what the store throws, and RangeError or USAGE for arguments */
export function answerCall(context: CallContext): Promise<CallAnswer> {
  return HANDLERS[context.call.name](context, { signal: context.signal });
}

/** Bytes that the answer may have, so that there is memory for them before the call runs. */
export function answerBytesOf(call: IncomingCall): number {
  switch (call.name) {
    case 'get':
    case 'settled':
      return bytesMax(call);
    case 'read':
    case 'pages-read':
      return readable(call);
    default:
      return 0;
  }
}

function object(found: StoredObject | undefined): CallAnswer {
  return found ? { fields: { exists: true, etag: found.etag }, bytes: found.bytes } : { fields: { exists: false } };
}

function bytesMax(call: IncomingCall): number {
  return Math.min(GATEWAY_BODY_BYTES_MAX, Math.max(0, call.integer('maxBytes')));
}

/** @throws {RangeError} for more than one answer carries */
function readable(call: IncomingCall): number {
  const lengthBytes = call.integer('lengthBytes');
  if (lengthBytes >= 0 && lengthBytes <= GATEWAY_BODY_BYTES_MAX) return lengthBytes;
  throw new RangeError(`a read has 0 … ${GATEWAY_BODY_BYTES_MAX} bytes, not ${lengthBytes}`);
}

function guardOf(call: IncomingCall): WriteGuard {
  const leaseId = call.optionalText('leaseId');
  return { fence: call.integer('fence'), ...(leaseId === undefined ? {} : { leaseId }) };
}

function snapshotOf(call: IncomingCall): { readonly snapshot?: string } {
  const snapshot = call.optionalText('snapshot');
  return snapshot === undefined ? {} : { snapshot };
}

function stagingName(place: string, call: IncomingCall): StagingName {
  return { place, key: call.text('key'), partBytes: call.integer('partBytes'), id: call.text('staging') };
}

async function* keysAfter(keys: AsyncIterable<string>, after: string | undefined): AsyncGenerator<string> {
  for await (const key of keys) if (after === undefined || key > after) yield key;
}

/** The first items of a listing, and whether there are more. */
async function page<T>(items: AsyncIterable<T>, shape: (item: T) => unknown): Promise<CallAnswer> {
  const shaped: unknown[] = [];
  let more = false;
  for await (const item of items) {
    more = shaped.length === GATEWAY_LIST_ITEMS_MAX;
    if (more) break;
    shaped.push(shape(item));
  }
  return { fields: { more }, bytes: asBuffer(Buffer.from(JSON.stringify(shaped))) };
}
