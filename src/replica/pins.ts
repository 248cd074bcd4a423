/**
 * Pins: whoever reads a point for long keeps what it needs from being deleted, also where the root drops it meanwhile.
 *
 * A reader puts its pin first and reads the root after it. A collector commits its root first and lists the pins after it. So
 * either the reader sees that the point is gone and stops, or the collector sees the pin and spares what it names. A pin is
 * renewed while the work runs; after a kill it ends by itself.
 */
import { abortedError, BlockferryError, isBlockferryError, throwIfAborted } from '../errors.ts';
import { PIN_BYTES_MAX, PINS_LISTED_MAX } from '../limits.ts';
import type { Clock, Ports } from '../ports.ts';
import type { CallOptions, Store } from '../transport/index.ts';
import { isPinKey, PINS_PREFIX, pinKey } from './layout.ts';
import { decodePin, encodePin, type Pin, pinOf } from './pin-record.ts';
import { type Replica, reopenReplica } from './replica.ts';
import type { RecoveryPoint } from './root.ts';

/** How long a pin holds without being renewed: what a killed reader keeps back longest. */
export const PIN_HOLD_MS: number = 60 * 60 * 1000;
/** So two renewals may fail, or clocks differ by 40 minutes. */
const RENEW_MS: number = 20 * 60 * 1000;
/** A pin that claims to hold longer than this was written by a clock that is wrong. */
const HOLD_MS_MAX: number = 24 * PIN_HOLD_MS;
/** One that ended so long ago is removed; before, its reader may wake up and renew it. */
const REMOVE_AFTER_MS: number = 24 * PIN_HOLD_MS;
/** The point may move onto another baseline between pin and root; each time it is pinned anew. */
const ROUNDS_MAX = 8;
const PIN_ID_BYTES = 16;

export interface PinNotice {
  readonly code: 'NOT_PINNED';
  readonly message: string;
}

export interface PinOptions {
  readonly ports: Pick<Ports, 'clock' | 'random'>;
  readonly signal?: AbortSignal;
  readonly onNotice?: (notice: PinNotice) => void;
  /** Logs behind this one are pinned as well, down from those that the point needs. */
  readonly logsAfter?: number;
}

/**
 * Runs `work` with a point pinned. `work` gets the replica as it was after the pin was put, and the point as it stands there.
 * A store that takes no pin gives a notice, and the work runs without.
 * @throws POINT_NOT_FOUND if the replica has no such point any more
 */
export async function withPin<T>(
  replica: Replica,
  pointId: string,
  options: PinOptions,
  work: (replica: Replica, point: RecoveryPoint) => Promise<T>,
): Promise<T> {
  const held = new HeldPin(replica, options);
  try {
    const settled = await settle(replica, pointId, held, options);
    return await work(settled.replica, settled.point);
  } finally {
    await held.release();
  }
}

async function settle(
  first: Replica,
  pointId: string,
  held: HeldPin,
  { signal }: PinOptions,
): Promise<{ readonly replica: Replica; readonly point: RecoveryPoint }> {
  let replica = first;
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    const pinned = pointOf(replica, pointId);
    if (!(await held.hold(replica, pinned))) return { replica, point: pinned };
    replica = await reopenReplica(replica, signal ? { signal } : {});
    const point = pointOf(replica, pointId);
    if (point.baseline === pinned.baseline && point.log === pinned.log) return { replica, point };
  }
  throw new BlockferryError(
    'REPLICA_FENCED',
    `point ${pointId} was moved ${ROUNDS_MAX} times while it was being pinned`,
    {
      facts: { point: pointId },
      hint: 'run the command again when no apply runs',
    },
  );
}

function pointOf({ record: { root }, description }: Replica, pointId: string): RecoveryPoint {
  const point = root.points.find(({ id }) => id === pointId);
  if (point) return point;
  throw new BlockferryError(
    'POINT_NOT_FOUND',
    `item "${description.item}" has no recovery point "${pointId}" any more`,
    {
      facts: { point: pointId, points: root.points.length },
      hint: 'list those it has with: blockferry points',
    },
  );
}

/** A pin in the store, renewed until it is released. */
class HeldPin {
  readonly #store: Store;
  readonly #rootKey: Uint8Array;
  readonly #options: PinOptions;
  readonly #key: string;
  readonly #ended: AbortController = new AbortController();
  #pin: Pin | undefined;
  #isHeld = false;
  #renewing: Promise<void> = Promise.resolve();

  constructor({ store, keyring }: Replica, options: PinOptions) {
    this.#store = store;
    this.#rootKey = keyring.keys.root;
    this.#options = options;
    this.#key = pinKey(options.ports.random.bytes(PIN_ID_BYTES));
  }

  /** Puts the pin, or puts it anew; false if the store does not take it. */
  async hold({ record }: Replica, point: RecoveryPoint): Promise<boolean> {
    const pin = pinOf(record.root, point, 0);
    const after = Math.min(pin.logs.after, this.#options.logsAfter ?? pin.logs.after);
    this.#pin = { ...pin, logs: { ...pin.logs, after } };
    const isHeld = await this.#put('what is read may be deleted meanwhile');
    if (isHeld && !this.#isHeld) this.#renewing = this.#renew();
    this.#isHeld ||= isHeld;
    return isHeld;
  }

  async release(): Promise<void> {
    this.#ended.abort();
    await this.#renewing;
    // What cannot be removed ends by itself.
    if (this.#isHeld) await this.#store.delete(this.#key).catch(() => {});
  }

  async #renew(): Promise<void> {
    for (;;) {
      try {
        await this.#options.ports.clock.sleep(RENEW_MS, this.#ended.signal);
      } catch {
        return;
      }
      await this.#put('it is tried again').catch(() => {});
    }
  }

  async #put(otherwise: string): Promise<boolean> {
    const { ports, signal, onNotice } = this.#options;
    const pin = { ...this.#pin!, untilMs: ports.clock.nowMs() + PIN_HOLD_MS };
    try {
      await this.#store.put(this.#key, encodePin(pin, this.#key, this.#rootKey), signal ? { signal } : {});
      return true;
    } catch (error) {
      if (signal?.aborted) throw abortedError(signal);
      if (!isBlockferryError(error)) throw error;
      onNotice?.({
        code: 'NOT_PINNED',
        message: `point ${pin.point} cannot be pinned (${error.message}): ${otherwise}`,
      });
      return false;
    }
  }
}

/** What is pinned now. */
export class Pins {
  /** Ids of points in use. */
  readonly points: ReadonlySet<string>;
  readonly #logs: readonly Pin['logs'][];
  readonly #snapshots: ReadonlySet<string>;
  /** There were too many to read: all counts as pinned. */
  readonly #isEverything: boolean;

  constructor(pins: readonly Pin[], isEverything = false) {
    this.points = new Set(pins.map(({ point }) => point));
    this.#logs = pins.map(({ logs }) => logs);
    this.#snapshots = new Set(
      pins.flatMap(({ snapshots }) => snapshots.map(({ blob, snapshot }) => `${blob} ${snapshot}`)),
    );
    this.#isEverything = isEverything;
  }

  hasLog(seq: number): boolean {
    return this.#isEverything || this.#logs.some(({ after, last }) => seq > after && seq <= last);
  }

  hasSnapshot(blob: string, snapshot: string): boolean {
    return this.#isEverything || this.#snapshots.has(`${blob} ${snapshot}`);
  }
}

/** Reads the pins when they are first asked for. To be made after the root was committed. */
export type AskPins = () => Promise<Pins>;

export function askPins(replica: Pick<Replica, 'store' | 'keyring'>, clock: Clock, options: CallOptions = {}): AskPins {
  let pins: Promise<Pins> | undefined;
  return () => {
    pins ??= listPins(replica, clock, options);
    return pins;
  };
}

/** All pins that hold; those that ended long ago, and what nobody with the key wrote there, are removed. */
export async function listPins(
  { store, keyring }: Pick<Replica, 'store' | 'keyring'>,
  clock: Clock,
  options: CallOptions = {},
): Promise<Pins> {
  const nowMs = clock.nowMs();
  const pins: Pin[] = [];
  let listed = 0;
  for await (const key of store.list(PINS_PREFIX, options)) {
    throwIfAborted(options.signal);
    if (!isPinKey(key)) continue;
    listed += 1;
    if (listed > PINS_LISTED_MAX) return new Pins(pins, true);
    const bytes = await readPin(store, key, options);
    if (!bytes) continue;
    const pin = decodePin(bytes, key, keyring.keys.root);
    if (!pin || pin.untilMs > nowMs + HOLD_MS_MAX || pin.untilMs < nowMs - REMOVE_AFTER_MS) {
      await store.delete(key, options);
    } else if (pin.untilMs > nowMs) pins.push(pin);
  }
  return new Pins(pins);
}

/** Its bytes; none for an object that is too long to be a pin; undefined if it went. */
async function readPin(store: Store, key: string, options: CallOptions): Promise<Uint8Array | undefined> {
  try {
    return (await store.get(key, PIN_BYTES_MAX, options))?.bytes;
  } catch (error) {
    if (isBlockferryError(error, 'STORE_REFUSED')) return new Uint8Array(0);
    throw error;
  }
}
