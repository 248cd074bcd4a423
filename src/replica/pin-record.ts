/**
 * A pin (docs/formats/replica.md): a point that somebody reads, all that it needs of the store, and until when. Canonical JSON
 * with an HMAC-SHA256 under the root key over `rpin1\0\0\0` ‖ its key ‖ all else: anyone may write objects into a store, but
 * only a holder of the replica's key can keep something from being deleted.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { isBlockferryError } from '../errors.ts';
import { DISKS_PER_ITEM_MAX, PIN_BYTES_MAX } from '../limits.ts';
import { canonicalJson, JsonReader } from './json.ts';
import { baseKey, manifestKey } from './layout.ts';
import { type Baseline, baselineOf, type RecoveryPoint, type Root } from './root.ts';
import { SEGMENTS_MAX } from './root-body.ts';

const DOMAIN = 'rpin1\0\0\0';
const VERSION = 1;
const MAC_BYTES = 32;
const COUNT_MAX = Number.MAX_SAFE_INTEGER;
const SNAPSHOTS_MAX: number = DISKS_PER_ITEM_MAX * (SEGMENTS_MAX + 1);

/** A snapshot of a blob. */
export interface PinnedSnapshot {
  /** Key of the blob. */
  readonly blob: string;
  readonly snapshot: string;
}

export interface Pin {
  /** Id of the point. */
  readonly point: string;
  /** Unix time at which it ends unless it is renewed. */
  readonly untilMs: number;
  /** Logs after the first and up to the last. */
  readonly logs: { readonly after: number; readonly last: number };
  readonly snapshots: readonly PinnedSnapshot[];
}

/** What a point needs of the store, as `root` has it. */
export function pinOf(root: Pick<Root, 'baselines'>, point: RecoveryPoint, untilMs: number): Pin {
  const baseline = baselineOf(root, point);
  const logs = { after: baseline.appliedLog, last: point.log };
  return { point: point.id, untilMs, logs, snapshots: snapshotsOf(baseline) };
}

/** All snapshots of a baseline. */
export function snapshotsOf({ disks }: Baseline): readonly PinnedSnapshot[] {
  return disks.flatMap(({ manifestSnapshot, baseSnapshots }, i) => [
    { blob: manifestKey(`d${i}`), snapshot: manifestSnapshot },
    ...baseSnapshots.map(({ segment, snapshot }) => ({ blob: baseKey(`d${i}`, segment), snapshot })),
  ]);
}

export function encodePin(pin: Pin, key: string, rootKey: Uint8Array): Uint8Array {
  const body = {
    version: VERSION,
    ...pin,
    logs: { ...pin.logs },
    snapshots: pin.snapshots.map((each) => ({ ...each })),
  };
  return Buffer.from(canonicalJson({ ...body, mac: macOf(canonicalJson(body), key, rootKey).toString('hex') }));
}

/** The pin; undefined for anything that no holder of the key wrote there. */
export function decodePin(bytes: Uint8Array, key: string, rootKey: Uint8Array): Pin | undefined {
  if (bytes.byteLength > PIN_BYTES_MAX) return undefined;
  try {
    const json = JsonReader.parse(bytes, key, 'REPLICA_ROOT');
    const given = json.field('mac').hex(MAC_BYTES);
    const { mac: _, ...body } = JSON.parse(Buffer.from(bytes).toString('utf8')) as Readonly<Record<string, never>>;
    return timingSafeEqual(macOf(canonicalJson(body), key, rootKey), given) ? readPin(json) : undefined;
  } catch (error) {
    if (isBlockferryError(error, 'REPLICA_ROOT')) return undefined;
    throw error;
  }
}

function readPin(json: JsonReader): Pin {
  json.field('version').integer(VERSION, VERSION);
  const logs = json.field('logs');
  return {
    point: json.field('point').string(64),
    untilMs: json.field('untilMs').integer(0, COUNT_MAX),
    logs: { after: logs.field('after').integer(0, COUNT_MAX), last: logs.field('last').integer(0, COUNT_MAX) },
    snapshots: json
      .field('snapshots')
      .list(SNAPSHOTS_MAX)
      .map((each) => ({ blob: each.field('blob').string(64), snapshot: each.field('snapshot').string(256) })),
  };
}

function macOf(body: string, key: string, rootKey: Uint8Array): Buffer {
  return createHmac('sha256', rootKey).update(DOMAIN).update(key).update(body).digest();
}
