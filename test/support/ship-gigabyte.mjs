// @ts-check
/**
 * Ships a log of 1 GiB to a folder and reads it back, with the built package: what a test measures from outside. The change log
 * is one MiB that every range names, so that nothing but the shipped log is large. Prints what it found as JSON.
 */
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { deriveEpochKeys } from '../../dist/chunker/index.js';
import { nodePorts } from '../../dist/host/index.js';
import { readShippedLog } from '../../dist/replica/shipped-log.js';
import { planFrames } from '../../dist/replica/shipped-log-plan.js';
import { writeShippedLog } from '../../dist/replica/shipped-log-writer.js';
import { Lanes, openStore, Retry, RetryingStore } from '../../dist/transport/index.js';
import { WorkerPool } from '../../dist/workers/index.js';

const MIB = 1024 * 1024;
const COUNT = 1024;
const directory = mkdtempSync(join(tmpdir(), 'blockferry-gigabyte-'));
const ports = nodePorts();
const { signal } = new AbortController();

/** Half of it compresses. */
const source = Buffer.concat([randomBytes(MIB / 2), Buffer.alloc(MIB / 2, 'block ')]);
writeFileSync(join(directory, 'source'), source);
const descriptor = openSync(join(directory, 'source'), 'r');

async function* ranges() {
  const log = /** @type {never} */ ({ file: { descriptor } });
  for (let i = 0; i < COUNT; i += 1) {
    yield { byteOffset: i * 2 * MIB, lengthBytes: MIB, log, fileOffset: 0, zero: false, timeStamp: 0 };
  }
}

const virtualSizeBytes = COUNT * 2 * MIB;
const pool = new WorkerPool(
  {
    replicaId: randomBytes(16),
    disks: [{ guid: randomBytes(16), layout: 'sealed', virtualSizeBytes, chunkBytes: 65_536 }],
    fingerprint: 'xxh128',
    fingerprintKey: randomBytes(32),
    compression: 'lz4',
    epochs: [deriveEpochKeys(randomBytes(32), 1)],
    currentEpoch: 1,
    checksums: false,
  },
  { threads: 2 },
);
try {
  const retry = new Retry(ports);
  const store = new RetryingStore(await openStore(pathToFileURL(join(directory, 'store')).href, { ports }), retry);
  const lanes = new Lanes({ clock: ports.clock, limit: 8 });
  const startedMs = performance.now();
  const log = await writeShippedLog({
    store,
    log: { seq: 1, id: randomBytes(16) },
    frames: planFrames([ranges()]),
    ...{ pool, lanes, ports, signal },
  });
  if (!log) throw new Error('nothing was shipped');
  const shippedMs = performance.now() - startedMs;
  const replica = /** @type {never} */ ({ store, description: { disks: [{ virtualSizeBytes }] } });
  const hash = createHash('sha256');
  let dataBytes = 0;
  for await (const { bytes } of readShippedLog(replica, log, { pool, lanes, ports, signal })) {
    if (!bytes) continue;
    dataBytes += bytes.byteLength;
    hash.update(bytes);
  }
  const expected = createHash('sha256');
  for (let i = 0; i < COUNT; i += 1) expected.update(source);
  const isEqual = hash.digest('hex') === expected.digest('hex');
  const elapsedMs = Math.round(performance.now() - startedMs);
  console.info(JSON.stringify({ ...log, id: '', dataBytes, isEqual, shippedMs: Math.round(shippedMs), elapsedMs }));
} finally {
  await pool.close();
  closeSync(descriptor);
  rmSync(directory, { recursive: true });
}
