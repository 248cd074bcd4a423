/**
 * The proof of a planned failover: that the disks, stopped, held exactly what the manifest of a recovery point says, chunk by
 * chunk. One JSON object, signed with HMAC-SHA256 under the root key over `rproof1\0` and the canonical JSON of all else.
 *
 * It says what was compared and found equal, not that nobody wrote afterwards: that is what the stop is for.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { BlockferryError } from '../errors.ts';
import { canonicalJson, JsonReader } from './json.ts';
import type { Replica } from './replica.ts';
import { baselineOf, type RecoveryPoint, type TableReference } from './root.ts';

const DOMAIN = Buffer.from('rproof1\0', 'latin1');
const MAC_BYTES = 32;

/** A disk that was compared with the manifest. */
export interface ProvenDisk {
  readonly disk: string;
  readonly virtualSizeBytes: number;
  /** SHA-256 over the references of the manifest's table pages, which authenticate every entry. */
  readonly manifest: string;
  /** Bytes of the disk that were read; all else are holes. */
  readonly readBytes: number;
  readonly differingChunks: 0;
}

export interface Proof {
  readonly item: string;
  readonly pointId: string;
  readonly pointTimeMs: number;
  readonly generation: number;
  /** SHA-256 of the root record. */
  readonly root: string;
  /** When guest writes were refused, and when all was compared. */
  readonly stoppedMs: number;
  readonly provenMs: number;
  readonly disks: readonly ProvenDisk[];
  readonly signature: string;
}

/** Key of the proof of a point. */
export function proofKey(pointId: string): string {
  return `proofs/${pointId}.json`;
}

/** Signs what was found; `readBytes` per disk. */
export function makeProof(
  { description, record, keyring }: Replica,
  point: RecoveryPoint,
  found: { readonly stoppedMs: number; readonly provenMs: number; readonly readBytes: readonly number[] },
): Proof {
  const baseline = baselineOf(record.root, point);
  const claim = {
    item: description.item,
    ...{ pointId: point.id, pointTimeMs: point.timeMs, generation: record.root.generation },
    root: hex(record.hash),
    ...{ stoppedMs: found.stoppedMs, provenMs: found.provenMs },
    disks: description.disks.map(({ id, virtualSizeBytes }, i) => ({
      ...{ disk: id, virtualSizeBytes, manifest: manifestHash(baseline.disks[i]!.tables) },
      ...{ readBytes: found.readBytes[i]!, differingChunks: 0 as const },
    })),
  };
  return { ...claim, signature: hex(sign(claim, keyring.keys.root)) };
}

export function encodeProof(proof: Proof): Uint8Array {
  return Buffer.from(`${canonicalJson({ ...(proof as object) })}\n`);
}

/** @throws REPLICA_ROOT if it was not made by a holder of the key */
export function checkProof(bytes: Uint8Array, { keyring }: Pick<Replica, 'keyring'>, source: string): Proof {
  const signature = JsonReader.parse(bytes, source, 'REPLICA_ROOT').field('signature').hex(MAC_BYTES);
  // What is signed is all else, whatever that is: only a holder of the key has made it a proof.
  const { signature: _, ...claim } = JSON.parse(Buffer.from(bytes).toString('utf8')) as Proof;
  if (timingSafeEqual(signature, sign(claim, keyring.keys.root))) return { ...claim, signature: hex(signature) };
  throw new BlockferryError('REPLICA_ROOT', `${source}: the signature of the proof does not verify`, {
    facts: { source, rule: 'a proof is signed by a holder of the key' },
    hint: 'it proves nothing; compare the disks with: blockferry verify --source',
  });
}

function manifestHash(tables: readonly TableReference[]): string {
  const hash = createHash('sha256');
  for (const { page, generation, epoch, tag } of tables) hash.update(`${page} ${generation} ${epoch} ${hex(tag)}\n`);
  return hash.digest('hex');
}

function sign(claim: object, rootKey: Uint8Array): Buffer {
  return createHmac('sha256', rootKey)
    .update(DOMAIN)
    .update(canonicalJson({ ...claim }))
    .digest();
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
