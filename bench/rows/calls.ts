/** calls: what one message to a worker and back costs, and one call to the store. One at a time: nothing is hidden behind another. */
import { randomBytes } from 'node:crypto';
import { open, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { deriveEpochKeys, ENTRY_BYTES } from '../../src/chunker/index.ts';
import { nodePorts } from '../../src/host/index.ts';
import { openStore } from '../../src/transport/index.ts';
import { type ScanTask, WorkerPool, type WorkerSetup } from '../../src/workers/index.ts';
import { KIB, type Lab, MIB } from '../lab.ts';
import { Steps } from '../steps.ts';

const CHUNK_BYTES = 256 * KIB;
const BATCH_BYTES = 2 * MIB;
const BLOB_BYTES = 64 * MIB;

function setup(): WorkerSetup {
  const geometry = { virtualSizeBytes: BATCH_BYTES, chunkBytes: CHUNK_BYTES };
  return {
    replicaId: randomBytes(16),
    disks: [{ ...geometry, guid: randomBytes(16), layout: 'sealed' }],
    fingerprint: 'xxh128',
    fingerprintKey: randomBytes(32),
    compression: 'lz4',
    epochs: [deriveEpochKeys(randomBytes(32), 1)],
    currentEpoch: 1,
    checksums: false,
  };
}

/** A batch of the first chunks of a file, to be compared with a manifest that knows none of them. */
function batch(chunks: number, descriptor: number): Omit<ScanTask, 'buffer'> {
  const indexes = Array.from({ length: chunks }, (_, i) => i);
  return {
    ...{ kind: 'scan', disk: 0, generation: 1, purpose: 'compare', inline: [] },
    chunks: Float64Array.from(indexes),
    ranges: Float64Array.from(indexes.flatMap((i) => [i, 0, descriptor, i * CHUNK_BYTES, CHUNK_BYTES])),
    entries: new Uint8Array(chunks * ENTRY_BYTES),
    forced: new Uint8Array(chunks),
  };
}

async function messages(lab: Lab): Promise<void> {
  const steps = new Steps(lab, 'calls');
  const path = lab.target('batch');
  await writeFile(path, randomBytes(BATCH_BYTES));
  const file = await open(path);
  const pool = new WorkerPool(setup(), { threads: 1 });
  let buffer = new ArrayBuffer(BATCH_BYTES);
  const add = (step: string, chunks: number): void => {
    const task = batch(chunks, file.fd);
    steps.add(step, chunks * CHUNK_BYTES, async () => {
      ({ buffer } = await pool.scan({ ...task, buffer }));
    });
  };
  add('message to a worker and back, of no chunks', 0);
  add('message to a worker and back, 2 MiB fingerprinted', BATCH_BYTES / CHUNK_BYTES);
  try {
    await steps.run();
  } finally {
    await pool.close();
    await file.close();
  }
}

async function storeCalls(lab: Lab): Promise<void> {
  const steps = new Steps(lab, 'calls');
  const url = lab.discarding();
  const store = await openStore(`${url}?sv=2026-04-06&sig=bench`, { ports: nodePorts() });
  const pages = store.pages('disks/d0/base');
  await pages.create(BLOB_BYTES, 1);
  const agent = new Agent({ keepAlive: true });
  for (const kib of [64, 256, 1024, 4096]) {
    const bytes = randomBytes(kib * KIB);
    const name = kib < 1024 ? `${kib} KiB` : `${kib / 1024} MiB`;
    steps.add(`page write of ${name} to the discarding server`, bytes.byteLength, () =>
      pages.write(bytes, 0, { fence: 1 }),
    );
    steps.add(`page write of ${name} by Node's client alone`, bytes.byteLength, () =>
      putByNode(agent, `${url}/disks/d0/base?comp=page`, bytes),
    );
  }
  await store.put('root', randomBytes(4 * KIB));
  steps.add('root read back', 4 * KIB, () => store.get('root', MIB));
  try {
    await steps.run();
  } finally {
    agent.destroy();
    await store.close();
  }
}

/** What a page write is at the least: neither signed nor summed, without a deadline, a lane or another try. */
function putByNode(agent: Agent, url: string, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const range = `bytes=0-${bytes.byteLength - 1}`;
    const headers = { 'content-length': bytes.byteLength, 'x-ms-page-write': 'update', 'x-ms-range': range };
    const sent = request(url, { method: 'PUT', agent, headers }, (answer) => {
      if (answer.statusCode === 201) answer.resume().once('end', resolve);
      else reject(new Error(`HTTP ${answer.statusCode}`));
    });
    sent.once('error', reject).end(bytes);
  });
}

export async function calls(lab: Lab): Promise<void> {
  await messages(lab);
  await storeCalls(lab);
}
