/**
 * A page blob behind an unreliable network, on a virtual clock: requests get lost, answers get lost, and requests arrive
 * long after their sender gave up. Conditions are looked at when a request is applied. One byte stands for a chunk.
 */
import { BlockferryError } from '../../src/errors.ts';
import type { Clock, Random } from '../../src/ports.ts';
import type { PageBlob, WriteGuard } from '../../src/transport/index.ts';

const CHUNK_BYTES = 512;
const TIMEOUT_MS = 100;
const LATE_MS_MAX = 5000;

export interface Faults {
  /** Of a lost request, of a lost answer, and of a late arrival, each. */
  readonly rate: number;
}

export interface UnreliableBlob extends Pick<PageBlob, 'key' | 'write' | 'raiseFence'> {
  /** First byte of each chunk. */
  readonly content: Uint8Array;
  fence: number;
}

export function unreliableBlob(clock: Clock, random: Random, chunks: number, faults: Faults): UnreliableBlob {
  const content = new Uint8Array(chunks);

  async function timeout(sentMs: number): Promise<never> {
    await clock.sleep(Math.max(0, sentMs + TIMEOUT_MS - clock.monotonicMs()));
    throw new BlockferryError('STORE_TIMEOUT', 'no answer in 100 ms', { retryable: true });
  }

  /** Sends one request; `apply` throws if its condition does not hold. */
  async function request(apply: () => void): Promise<void> {
    const sentMs = clock.monotonicMs();
    const fate = random.fraction();
    if (fate < faults.rate) return await timeout(sentMs);
    if (fate < 2 * faults.rate) {
      const lateMs = TIMEOUT_MS + random.fraction() * LATE_MS_MAX;
      void clock
        .sleep(lateMs)
        .then(apply)
        .catch(() => {});
      return await timeout(sentMs);
    }
    await clock.sleep(1 + random.fraction() * 40);
    if (fate < 3 * faults.rate) {
      try {
        apply();
      } catch {}
      return await timeout(sentMs);
    }
    let refusal: unknown;
    try {
      apply();
    } catch (error) {
      refusal = error;
    }
    await clock.sleep(1 + random.fraction() * 40);
    if (refusal !== undefined) throw refusal;
  }

  const blob: UnreliableBlob = {
    key: 'blob',
    content,
    fence: 1,
    write(bytes: Uint8Array, offset: number, guard: WriteGuard): Promise<void> {
      const value = bytes[0] as number;
      return request(() => {
        if (guard.fence !== blob.fence) throw new BlockferryError('REPLICA_FENCED', `fence is ${blob.fence}`);
        content[offset / CHUNK_BYTES] = value;
      });
    },
    raiseFence(fence: number): Promise<void> {
      return request(() => {
        blob.fence = Math.max(blob.fence, fence);
      });
    },
  };
  return blob;
}
