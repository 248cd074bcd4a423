/** Large objects in the making, by the name that their client gave them: each is several requests. */
import { BlockferryError } from '../errors.ts';
import { GATEWAY_STAGINGS_MAX } from '../limits.ts';
import type { Clock } from '../ports.ts';
import type { StagedObject, Store } from '../transport/index.ts';
import { lost } from './spool-staging.ts';

/** No request is tried for longer than ten minutes: who was silent for an hour is gone. */
const IDLE_MS_MAX = 3_600_000;
const ID = /^[0-9a-f]{32}$/;

interface Staging {
  readonly object: StagedObject;
  touchedMs: number;
  isCommitted: boolean;
}

/** Which object, of which client's naming. */
export interface StagingName {
  readonly place: string;
  readonly key: string;
  readonly partBytes: number;
  readonly id: string;
}

export class Stagings {
  readonly #clock: Clock;
  readonly #open: Map<string, Staging> = new Map();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The staging of that name, begun if it is not there. @throws STORE_THROTTLED where there are too many */
  async begin(store: Store, name: StagingName): Promise<StagedObject> {
    const found = this.#touch(name);
    if (found) return found.object;
    await this.sweep();
    if (this.#open.size >= GATEWAY_STAGINGS_MAX) {
      throw new BlockferryError('STORE_THROTTLED', `${GATEWAY_STAGINGS_MAX} large objects are in the making`, {
        facts: { stagings: GATEWAY_STAGINGS_MAX, retryAfterMs: 5_000 },
        retryable: true,
      });
    }
    const staging = { object: store.stage(name.key, name.partBytes), touchedMs: this.#clock.monotonicMs() };
    this.#open.set(idOf(name), { ...staging, isCommitted: false });
    return staging.object;
  }

  /** Once it was committed it is kept for a while, for a client that did not get the answer. @throws STORE_CONDITION if it is gone */
  async commit(name: StagingName, commit: (object: StagedObject) => Promise<void>): Promise<void> {
    const found = this.#touch(name);
    if (!found) throw lost(name.key);
    await commit(found.object);
    found.isCommitted = true;
  }

  async abort(name: StagingName): Promise<void> {
    const found = this.#touch(name);
    if (!found) return;
    this.#open.delete(idOf(name));
    await found.object.abort();
  }

  /** Ends all: their parts are of no use to the next start. */
  async close(): Promise<void> {
    const open = [...this.#open.values()];
    this.#open.clear();
    await Promise.allSettled(open.map(({ object }) => object.abort()));
  }

  /** Makes room: what is over first, then who was silent for long. */
  async sweep(): Promise<void> {
    const silentSinceMs = this.#clock.monotonicMs() - IDLE_MS_MAX;
    const isCrowded = this.#open.size >= GATEWAY_STAGINGS_MAX / 2;
    for (const [id, { object, touchedMs, isCommitted }] of [...this.#open]) {
      if (touchedMs >= silentSinceMs && !(isCommitted && isCrowded)) continue;
      this.#open.delete(id);
      await object.abort();
    }
  }

  #touch(name: StagingName): Staging | undefined {
    const found = this.#open.get(idOf(name));
    if (found) found.touchedMs = this.#clock.monotonicMs();
    return found;
  }
}

function idOf({ place, key, partBytes, id }: StagingName): string {
  if (!ID.test(id)) throw new RangeError('a staging is named by 16 bytes in hexadecimal');
  return `${place} ${key} ${partBytes} ${id}`;
}
