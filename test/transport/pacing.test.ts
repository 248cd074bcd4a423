/** Retry, congestion, bandwidth and lanes, in virtual time. */
import { describe, expect, it } from 'vitest';
import { BlockferryError, type ErrorDetails } from '../../src/errors.ts';
import { CongestionWindow } from '../../src/transport/congestion.ts';
import { Bandwidth, Lanes, Retry, type RetryEvent, type RetryPolicy } from '../../src/transport/index.ts';
import { seededRandom, type VirtualClock, virtualClock } from '../support/virtual-clock.ts';

const MIB = 1024 * 1024;

function busy(details: ErrorDetails = {}): BlockferryError {
  const facts = { status: 503, serviceCode: 'ServerBusy', ...details.facts };
  return new BlockferryError('STORE_THROTTLED', 'base: busy', { retryable: true, ...details, facts });
}

function retryOn(clock: VirtualClock, policy?: Partial<RetryPolicy>): { retry: Retry; events: RetryEvent[] } {
  const events: RetryEvent[] = [];
  const whole = { triesMax: 5, elapsedMsMax: 60_000, firstWaitMs: 100, waitMsMax: 1000, ...policy };
  const random = seededRandom(7);
  return { retry: new Retry({ clock, random, policy: whole, onRetry: (event) => events.push(event) }), events };
}

/** Fails so often, then succeeds. */
function failing(times: number, error: () => unknown): () => Promise<string> {
  let left = times;
  return async () => {
    if (left-- > 0) throw error();
    return 'done';
  };
}

describe('retry', () => {
  it('tries again what is worth it, and tells each time', async () => {
    const clock = virtualClock();
    const { retry, events } = retryOn(clock);
    expect(await clock.run(retry.run('put', failing(3, busy)))).toBe('done');
    expect(events.map(({ operation, tries }) => `${operation} ${tries}`)).toEqual(['put 1', 'put 2', 'put 3']);
    expect(clock.monotonicMs()).toBe(events.reduce((sum, { waitMs }) => sum + waitMs, 0));
  });

  it('waits a random share of a step that doubles up to its cap', async () => {
    const clock = virtualClock();
    const { retry, events } = retryOn(clock, { triesMax: 200, elapsedMsMax: 1e9 });
    await clock.run(retry.run('put', failing(150, busy)));
    for (const { tries, waitMs } of events) expect(waitMs).toBeLessThanOrEqual(Math.min(1000, 100 * 2 ** (tries - 1)));
    const late = events.slice(10).map(({ waitMs }) => waitMs);
    expect(Math.min(...late)).toBeLessThan(100);
    expect(Math.max(...late)).toBeGreaterThan(900);
    expect(new Set(late).size).toBeGreaterThan(100);
  });

  it('gives up soon on a store that never answered, and not on one that did', async () => {
    const clock = virtualClock();
    const firstContact = { triesMax: 2, elapsedMsMax: 60_000, firstWaitMs: 100, waitMsMax: 1000 };
    const retry = new Retry({ clock, random: seededRandom(7), policy: { ...firstContact, triesMax: 5 }, firstContact });
    const gone = (): BlockferryError => new BlockferryError('STORE_UNREACHABLE', 'refused', { retryable: true });
    await expect(clock.run(retry.run('get', failing(2, gone)))).rejects.toMatchObject({ facts: { tries: 2 } });
    // A refusal is an answer.
    expect(await clock.run(retry.run('get', failing(4, busy)))).toBe('done');
    expect(await clock.run(retry.run('get', failing(4, gone)))).toBe('done');
  });

  it('waits at least as long as the store asked', async () => {
    const clock = virtualClock();
    const { retry, events } = retryOn(clock);
    await clock.run(
      retry.run(
        'put',
        failing(1, () => busy({ facts: { retryAfterMs: 7000 } })),
      ),
    );
    expect(events[0]?.waitMs).toBe(7000);
  });

  it('ends after its tries, or when its time would run out, and says so', async () => {
    const clock = virtualClock();
    const { retry, events } = retryOn(clock);
    const many = retry.run('put', failing(99, busy));
    await expect(clock.run(many)).rejects.toMatchObject({
      code: 'STORE_THROTTLED',
      message: expect.stringContaining('5 tries'),
      retryable: false,
      facts: { tries: 5 },
    });
    expect(events).toHaveLength(4);
    const long = retry.run(
      'put',
      failing(99, () => busy({ facts: { retryAfterMs: 50_000 } })),
    );
    await expect(clock.run(long)).rejects.toMatchObject({ facts: { tries: 2 } });
  });

  it('leaves alone what is not retryable, and errors that are not ours', async () => {
    const clock = virtualClock();
    const { retry, events } = retryOn(clock);
    for (const error of [new RangeError('x'), new BlockferryError('REPLICA_FENCED', 'x')]) {
      await expect(
        clock.run(
          retry.run(
            'put',
            failing(1, () => error),
          ),
        ),
      ).rejects.toBe(error);
    }
    expect(events).toEqual([]);
  });

  it('stops waiting when its caller aborts', async () => {
    const clock = virtualClock();
    const { retry } = retryOn(clock, { firstWaitMs: 1e6, waitMsMax: 1e6, elapsedMsMax: 1e9 });
    const controller = new AbortController();
    void clock.sleep(10).then(() => controller.abort());
    const run = retry.run('put', failing(9, busy), controller.signal);
    await expect(clock.run(run)).rejects.toMatchObject({ code: 'ABORTED' });
    expect(clock.monotonicMs()).toBe(10);
  });
});

describe('bandwidth', () => {
  it('holds the rate over many takers, without a burst', async () => {
    const clock = virtualClock();
    const bandwidth = new Bandwidth(clock, 10 * MIB);
    await clock.run(clock.sleep(5000));
    const startedMs = clock.monotonicMs();
    await clock.run(Promise.all(Array.from({ length: 40 }, () => bandwidth.take(1 * MIB))));
    expect(clock.monotonicMs() - startedMs).toBeGreaterThanOrEqual(3899);
    expect(clock.monotonicMs() - startedMs).toBeLessThan(4000);
  });

  it('changes at run time, for those who wait as well', async () => {
    const clock = virtualClock();
    const bandwidth = new Bandwidth(clock, 1);
    const takes = Promise.all([bandwidth.take(1 * MIB), bandwidth.take(1 * MIB), bandwidth.take(1 * MIB)]);
    void clock.sleep(1000).then(() => bandwidth.setBytesPerSecond(1 * MIB));
    void clock.sleep(1500).then(() => bandwidth.setBytesPerSecond(undefined));
    await clock.run(takes);
    expect(clock.monotonicMs()).toBe(1500);
    expect(bandwidth.bytesPerSecond).toBeUndefined();
  });

  it('lets a taker go when its caller aborts', async () => {
    const clock = virtualClock();
    const bandwidth = new Bandwidth(clock, 1);
    const controller = new AbortController();
    void clock.sleep(10).then(() => controller.abort());
    await bandwidth.take(1 * MIB);
    await expect(clock.run(bandwidth.take(1, controller.signal))).rejects.toMatchObject({ code: 'ABORTED' });
  });

  it('refuses a rate that is none', () => {
    for (const rate of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => new Bandwidth(virtualClock(), rate)).toThrow(RangeError);
    }
  });
});

describe('lanes', () => {
  /** Runs many requests of a server that takes `latencyMs(open)`; returns the most that were open at once. */
  async function peakOf(
    clock: VirtualClock,
    lanes: Lanes,
    requests: number,
    answer: (open: number) => Promise<void>,
  ): Promise<number> {
    let open = 0;
    let peak = 0;
    const call = async (): Promise<void> => {
      open += 1;
      peak = Math.max(peak, open);
      try {
        await answer(open);
      } finally {
        open -= 1;
      }
    };
    await clock.run(Promise.allSettled(Array.from({ length: requests }, () => lanes.run(4 * MIB, call))));
    return peak;
  }

  it('open up while all is answered, to their bound', async () => {
    const clock = virtualClock();
    const lanes = new Lanes({ clock, limit: 16 });
    expect(lanes.report()).toEqual({ limit: 8, inFlight: 0, waiting: 0, decreases: 0 });
    expect(await peakOf(clock, lanes, 1000, () => clock.sleep(100))).toBe(16);
    expect(lanes.report()).toEqual({ limit: 16, inFlight: 0, waiting: 0, decreases: 0 });
  });

  it.each([
    [busy(), 'HTTP 503 ServerBusy'],
    [busy({ facts: { status: 500, serviceCode: 'OperationTimedOut' } }), 'HTTP 500 OperationTimedOut'],
    [busy({ facts: { status: 429, serviceCode: 'TooManyRequests' } }), 'HTTP 429 TooManyRequests'],
    [new BlockferryError('STORE_TIMEOUT', 'x', { facts: { status: 408 } }), 'HTTP 408'],
    [new BlockferryError('STORE_UNREACHABLE', 'x', { facts: { status: 502 } }), 'HTTP 502'],
    [new BlockferryError('STORE_UNREACHABLE', 'x', { facts: { status: 504 } }), 'HTTP 504'],
    [new BlockferryError('STORE_TIMEOUT', 'x'), 'no answer in time'],
  ])('halve once per episode on overload and say why: %s %s', async (error, cause) => {
    const clock = virtualClock();
    const lanes = new Lanes({ clock, limit: 8 });
    const call = async (): Promise<void> => {
      await clock.sleep(100);
      throw error;
    };
    await clock.run(Promise.allSettled(Array.from({ length: 8 }, () => lanes.run(4 * MIB, call))));
    await clock.run(clock.sleep(50));
    expect(lanes.report()).toMatchObject({ limit: 4, decreases: 1, lastCause: cause, lastDecreaseAgoMs: 50 });
  });

  it('do not take a fence, a lease or a missing blob for overload', async () => {
    const clock = virtualClock();
    const lanes = new Lanes({ clock, limit: 8 });
    for (const code of ['REPLICA_FENCED', 'REPLICA_LEASED', 'STORE_NOT_FOUND', 'ABORTED'] as const) {
      const call = async (): Promise<void> => {
        throw new BlockferryError(code, 'x');
      };
      await clock.run(lanes.run(4 * MIB, call).catch(() => {}));
    }
    expect(lanes.report()).toMatchObject({ limit: 8, decreases: 0 });
  });

  it('settle where a server sheds load, instead of climbing into it', async () => {
    const clock = virtualClock();
    const lanes = new Lanes({ clock, limit: 64 });
    let refused = 0;
    await peakOf(clock, lanes, 3000, async (open) => {
      await clock.sleep(200);
      if (open <= 12) return;
      refused += 1;
      throw busy();
    });
    expect(refused).toBeLessThan(150);
    expect(lanes.report().limit).toBeLessThanOrEqual(13);
  });

  it('draw back when latency grows with the queue, and say so', async () => {
    const clock = virtualClock();
    const lanes = new Lanes({ clock, limit: 32 });
    let slow = false;
    const answer = async (open: number): Promise<void> => clock.sleep(slow ? 2000 + open * 300 : 200);
    await peakOf(clock, lanes, 100, answer);
    slow = true;
    await peakOf(clock, lanes, 60, answer);
    expect(lanes.report().decreases).toBeGreaterThan(0);
    expect(lanes.report().lastCause).toMatch(/^latency \d+ ms, usually \d+ ms$/);
  });

  it('stay under the bandwidth, and share a bound between blobs', async () => {
    const clock = virtualClock();
    const bandwidth = new Bandwidth(clock, 4 * MIB);
    const lanes = new Lanes({ clock, limit: 4, bandwidth });
    await peakOf(clock, lanes, 10, () => clock.sleep(1));
    expect(clock.monotonicMs()).toBeGreaterThanOrEqual(9000);
  });

  it('keep count when a wait is aborted in the moment in which it is admitted', async () => {
    const window = new CongestionWindow(virtualClock(), 1, 1);
    await window.enter();
    const controller = new AbortController();
    const entered = window.enter(controller.signal);
    window.leave(0, 0);
    controller.abort();
    await entered;
    expect(window.report().inFlight).toBe(1);
  });

  it('take one signal for hundreds of requests without a warning of leaks', async () => {
    const warnings: Error[] = [];
    const note = (warning: Error): void => void warnings.push(warning);
    process.on('warning', note);
    const clock = virtualClock();
    const bandwidth = new Bandwidth(clock, 4 * MIB);
    const lanes = new Lanes({ clock, limit: 64, bandwidth });
    const { signal } = new AbortController();
    const calls = Array.from({ length: 200 }, () => lanes.run(MIB, () => clock.sleep(10), { signal }));
    await clock.run(Promise.all(calls));
    process.off('warning', note);
    expect(warnings).toEqual([]);
  });

  it('give every place back, whatever ends a request or a wait', async () => {
    const clock = virtualClock();
    const lanes = new Lanes({ clock, limit: 20 });
    const random = seededRandom(3);
    const calls = Array.from({ length: 500 }, () => {
      const controller = new AbortController();
      if (random.fraction() < 0.5) void clock.sleep(random.fraction() * 2000).then(() => controller.abort());
      const call = async (): Promise<void> => {
        await clock.sleep(random.fraction() * 100, controller.signal);
        if (random.fraction() < 0.2) throw busy();
      };
      return lanes.run(64 * 1024, call, { signal: controller.signal });
    });
    await clock.run(Promise.allSettled(calls));
    expect(lanes.report()).toMatchObject({ inFlight: 0, waiting: 0 });
    await clock.run(lanes.run(1, async () => {}));
  });
});
