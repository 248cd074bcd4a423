/**
 * One thing of what blockferry does, and nothing else, as a program of its own: what a command could reach in Node on this machine if
 * all else cost nothing. The figures stand beside those of the commands.
 *
 *     read FILE | compress FILE | copy FILE TO     by two threads, in pieces of 2 MiB
 *     send FILE URL                                to a new page blob, 4 MiB a write, on eight connections
 *     serve SOCKET                                 NBD of 4 GiB that forgets what is written, until SIGINT
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { nodePorts } from '../src/host/index.ts';
import { type BlockDevice, NbdServer } from '../src/tracker/nbd/index.ts';
import { UploadLine } from '../src/transport/upload-line.ts';
import { GIB, KIB, MIB } from './lab.ts';

const THREADS = 2;
const CONNECTIONS = 8;
const WRITE_BYTES = 4 * MIB;

async function inThreads(...args: readonly string[]): Promise<void> {
  const ends = Array.from({ length: THREADS }, (_, thread) => {
    const workerData = { args, thread, threads: THREADS };
    const worker = new Worker(new URL('./limit-thread.js', import.meta.url), { workerData });
    return new Promise<void>((resolve, reject) => {
      worker.once('error', reject).once('exit', () => resolve());
    });
  });
  await Promise.all(ends);
}

async function send(path: string, url: string): Promise<void> {
  const descriptor = openSync(path, 'r');
  const sizeBytes = fstatSync(descriptor).size;
  const blob = new URL(url);
  const headers = {
    'x-ms-blob-type': 'PageBlob',
    'x-ms-blob-content-length': String(sizeBytes),
    'content-length': '0',
  };
  const line = new UploadLine(blob, nodePorts().clock);
  await line.put(blob.pathname, headers, Buffer.alloc(0), () => {});
  let next = 0;
  const one = async (): Promise<void> => {
    const buffer = Buffer.allocUnsafeSlow(WRITE_BYTES);
    for (let at = next; at < sizeBytes; at = next) {
      const body = buffer.subarray(0, Math.min(WRITE_BYTES, sizeBytes - at));
      next += body.byteLength;
      readSync(descriptor, body, 0, body.byteLength, at);
      const about = {
        'x-ms-page-write': 'update',
        'x-ms-range': `bytes=${at}-${at + body.byteLength - 1}`,
        'content-length': String(body.byteLength),
      };
      const { status } = await line.put(`${blob.pathname}?comp=page`, about, body, () => {});
      if (status !== 201) throw new Error(`a write was answered with ${status}`);
    }
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, one));
  line.close();
  closeSync(descriptor);
}

/** Reads as zeros, whatever was written. */
const FORGETFUL: BlockDevice = {
  name: '',
  sizeBytes: 4 * GIB,
  minimumBlockBytes: 1,
  preferredBlockBytes: 4 * KIB,
  zeroIsFast: true,
  read: async (into) => void into.fill(0),
  write: async () => {},
  zero: async () => {},
  flush: async () => {},
  allocation: async function* (_, lengthBytes) {
    yield { lengthBytes, flags: 0 };
  },
  dirty: async function* (_, lengthBytes) {
    yield { lengthBytes, flags: 0 };
  },
};

async function serve(path: string): Promise<void> {
  const server = new NbdServer({ devices: [FORGETFUL], ports: nodePorts(), onEvent: () => {} });
  await server.listen({ path });
  process.once('SIGINT', () => void server.close());
}

const [what = '', ...args] = process.argv.slice(2);
if (what === 'send') await send(args[0]!, args[1]!);
else if (what === 'serve') await serve(args[0]!);
else await inThreads(what, ...args);
