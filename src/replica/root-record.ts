/**
 * The root's record. Replacing it by compare-and-swap is the only commit.
 *
 *     0    8   magic `RROOT1\0\0`
 *     8    4   body length, u32 little-endian
 *     12   n   body, canonical JSON (root-body.ts)
 *     12+n 32  HMAC-SHA256 under the root key over everything before it
 *
 * Promises: a root that decodes was written by a holder of the key, for this replica description, and names all that its
 * points need. Says nothing about being the newest: see checkAnchor.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { ByteReader, bytesEqual } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { ROOT_BYTES_MAX } from '../limits.ts';
import { canonicalJson, JsonReader } from './json.ts';
import type { Anchor, Root, RootRecord } from './root.ts';
import { checkCounts, readRoot, rootFull, rootJson } from './root-body.ts';

const MAGIC = Buffer.from('RROOT1\0\0', 'latin1');
const HEAD_BYTES = 12;
const MAC_BYTES = 32;

/** SHA-256 of a whole record: how the next root and the anchor name it. */
export function rootHash(record: Uint8Array): Uint8Array {
  return createHash('sha256').update(record).digest();
}

/**
 * What a reader would not take is never written: a root that nobody can open would be the end of the replica.
 * @throws REPLICA_FULL for one that is too large; REPLICA_ROOT for one that breaks another rule, which is a bug
 */
export function encodeRoot(root: Root, rootKey: Uint8Array): Uint8Array {
  checkCounts(root);
  const body = Buffer.from(canonicalJson(rootJson(root)));
  const sizeBytes = HEAD_BYTES + body.byteLength + MAC_BYTES;
  if (sizeBytes > ROOT_BYTES_MAX) throw rootFull('bytes', sizeBytes, ROOT_BYTES_MAX);
  readRoot(JsonReader.parse(body, 'the root to be written', 'REPLICA_ROOT'));
  const head = Buffer.alloc(HEAD_BYTES);
  MAGIC.copy(head);
  head.writeUInt32LE(body.byteLength, MAGIC.byteLength);
  const mac = createHmac('sha256', rootKey).update(head).update(body).digest();
  return Buffer.concat([head, body, mac]);
}

/** @throws REPLICA_ROOT if the record is not authentic or not of this format. */
export function decodeRoot(record: Uint8Array, rootKey: Uint8Array, source: string): RootRecord {
  const reader = new ByteReader(record, { source, offset: 0, code: 'REPLICA_ROOT' });
  if (!bytesEqual(reader.bytes(MAGIC.byteLength), MAGIC)) throw broken(source, 0, 'magic is RROOT1');
  const length = reader.u32LE();
  if (length !== record.byteLength - HEAD_BYTES - MAC_BYTES || record.byteLength > ROOT_BYTES_MAX) {
    throw broken(source, MAGIC.byteLength, 'body length agrees with the record');
  }
  const body = reader.bytes(length);
  const mac = createHmac('sha256', rootKey)
    .update(record.subarray(0, HEAD_BYTES + length))
    .digest();
  if (!timingSafeEqual(mac, reader.bytes(MAC_BYTES))) throw broken(source, HEAD_BYTES + length, 'HMAC verifies');
  return { root: readRoot(JsonReader.parse(body, source, 'REPLICA_ROOT')), hash: rootHash(record) };
}

/**
 * Refuses a root that is older than the anchor, or another one of the same generation. A newer root is taken: only a
 * holder of the key can have made it.
 * @throws REPLICA_ROLLED_BACK
 */
export function checkAnchor({ root, hash }: RootRecord, anchor: Anchor, source: string): void {
  if (root.generation > anchor.generation || (root.generation === anchor.generation && bytesEqual(hash, anchor.hash)))
    return;
  throw new BlockferryError(
    'REPLICA_ROLLED_BACK',
    `${source}: generation ${root.generation} is there, generation ${anchor.generation} was seen before`,
    {
      facts: { source, generation: root.generation, anchorGeneration: anchor.generation },
      hint: 'somebody put an older state of the replica back; restore the newer objects, or protect the item anew',
    },
  );
}

function broken(source: string, offset: number, rule: string): BlockferryError {
  return new BlockferryError('REPLICA_ROOT', `${source}: offset ${offset} breaks the rule "${rule}"`, {
    facts: { source, offset, rule },
    hint: 'the root was damaged or changed by somebody without the key; restore it from a copy of the store',
  });
}
