/** What connections hold: counted, bounded, handed on in order, and taken from those who sit on it. */
import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/bytes.ts';
import { NBD_CONNECTION_BYTES_MAX, NBD_SERVER_BYTES_MAX, NBD_STARVING_MS_MAX } from '../../src/limits.ts';
import { ConnectionMemory, ServerMemory } from '../../src/tracker/nbd/memory.ts';
import { type VirtualClock, virtualClock } from '../support/virtual-clock.ts';

interface Lab {
  readonly clock: VirtualClock;
  readonly server: ServerMemory;
  /** What happened, in order. */
  readonly events: string[];
  connection(name: string, heldBytes?: number): ConnectionMemory;
}

function newLab(onStarving = (): void => {}): Lab {
  const clock = virtualClock();
  const events: string[] = [];
  const server = new ServerMemory(clock, () => {
    events.push('starving');
    onStarving();
  });
  return {
    clock,
    server,
    events,
    connection(name, heldBytes = 0) {
      const memory = new ConnectionMemory(server, () => events.push(name));
      memory.hold(heldBytes);
      return memory;
    },
  };
}

describe('the memory of a connection', () => {
  it('is full at its own bound', () => {
    const memory = newLab().connection('a', NBD_CONNECTION_BYTES_MAX - 1);
    expect(memory.isFull).toBe(false);
    memory.hold(1);
    expect(memory.isFull).toBe(true);
  });

  it('is full when the server is', () => {
    const lab = newLab();
    const small = lab.connection('small', 1);
    lab.connection('others', NBD_SERVER_BYTES_MAX - 1);
    expect(small.isFull).toBe(true);
    expect(small.hasRoom).toBe(true);
  });

  it('calls back once, when there is room', () => {
    const lab = newLab();
    const memory = lab.connection('a', NBD_CONNECTION_BYTES_MAX + 10);
    memory.wait();
    memory.release(10);
    expect(lab.events).toEqual([]);
    memory.release(1);
    memory.release(1);
    expect(lab.events).toEqual(['a']);
  });

  it('is handed on in the order of waiting, as far as it goes', () => {
    const lab = newLab();
    const holder = lab.connection('holder', NBD_SERVER_BYTES_MAX);
    const first: ConnectionMemory = new ConnectionMemory(lab.server, () => {
      lab.events.push('first');
      first.hold(5);
    });
    first.wait();
    lab.connection('second').wait();
    lab.connection('own bound', NBD_CONNECTION_BYTES_MAX).wait();
    lab.connection('third').wait();
    holder.release(NBD_CONNECTION_BYTES_MAX + 1);
    expect(lab.events).toEqual(['first']);
    holder.release(5);
    expect(lab.events).toEqual(['first', 'second', 'third']);
  });

  it('does not call back who waits no more', () => {
    const lab = newLab();
    const memory = lab.connection('a', NBD_CONNECTION_BYTES_MAX);
    memory.wait();
    memory.forget();
    memory.release(10);
    expect(lab.events).toEqual([]);
  });
});

describe('a connection that waits in vain', () => {
  it('is noticed, as long as it lasts', async () => {
    const lab = newLab(() => {
      if (lab.events.length === 3) holder.release(NBD_SERVER_BYTES_MAX);
    });
    const holder = lab.connection('holder', NBD_SERVER_BYTES_MAX);
    lab.connection('poor').wait();
    await lab.clock.drain();
    expect(lab.events).toEqual(['starving', 'starving', 'starving', 'poor']);
    expect(lab.clock.monotonicMs()).toBe(3 * NBD_STARVING_MS_MAX);
  });

  it('is one that holds little: whoever reached its own bound has itself to wait for', async () => {
    const lab = newLab();
    lab.connection('rich', NBD_SERVER_BYTES_MAX).wait();
    await lab.clock.drain();
    expect(lab.events).toEqual([]);
  });

  it('is not one that had its turn meanwhile', async () => {
    const lab = newLab();
    const holder = lab.connection('holder', NBD_SERVER_BYTES_MAX);
    const busy: ConnectionMemory = new ConnectionMemory(lab.server, () => lab.events.push('turn'));
    busy.wait();
    await lab.clock.run(lab.clock.sleep(NBD_STARVING_MS_MAX - 1));
    holder.release(1);
    holder.hold(1);
    busy.wait();
    await lab.clock.run(lab.clock.sleep(NBD_STARVING_MS_MAX - 1));
    expect(lab.events).toEqual(['turn']);
    lab.server.close();
    await lab.clock.drain();
    expect(lab.events).toEqual(['turn']);
  });
});

describe('buffers', () => {
  it('that were given back are handed out again', () => {
    const { connection } = newLab();
    const memory = connection('a');
    const buffer = memory.take(1000);
    expect(memory.heldBytes).toBe(1000);
    memory.giveBack(buffer);
    expect(memory.heldBytes).toBe(0);
    expect([999, 1000, 1000].map((lengthBytes) => memory.take(lengthBytes) === buffer)).toEqual([false, true, false]);
  });

  it('that somebody may still use are not handed out again', () => {
    const { connection } = newLab();
    const memory = connection('a');
    const buffer = memory.take(1000);
    memory.abandon(buffer);
    expect(memory.heldBytes).toBe(0);
    expect(memory.take(1000) === buffer).toBe(false);
    memory.end({ users: 1, lengthBytes: 1000, buffer }, false);
    expect(memory.take(1000) === buffer).toBe(false);
  });

  it('are kept up to a bound, whatever their sizes', () => {
    const { connection } = newLab();
    const memory = connection('a');
    const kept = new Set<Buffer>();
    for (let i = 0; i < 5000; i += 1) {
      const buffer = memory.take(1024 + i);
      kept.add(buffer);
      memory.giveBack(buffer);
    }
    let keptBytes = 0;
    for (let i = 0; i < 5000; i += 1) {
      const buffer = memory.take(1024 + i);
      if (kept.has(buffer)) keptBytes += buffer.byteLength;
    }
    expect(keptBytes).toBeGreaterThan(0);
    expect(keptBytes).toBeLessThanOrEqual(NBD_CONNECTION_BYTES_MAX);
    const large = memory.take(NBD_CONNECTION_BYTES_MAX + 1);
    memory.giveBack(large);
    expect(memory.take(NBD_CONNECTION_BYTES_MAX + 1) === large).toBe(false);
  });

  it('of the size that is asked for are kept as long as they fit, others make room for them', () => {
    const { connection } = newLab();
    const memory = connection('a');
    memory.giveBack(memory.take(MIB / 2));
    const buffers = Array.from({ length: 40 }, () => memory.take(MIB));
    for (const buffer of buffers) memory.giveBack(buffer);
    const again = buffers.map(() => memory.take(MIB));
    expect(again.filter((buffer) => buffers.includes(buffer)).length).toBe(NBD_CONNECTION_BYTES_MAX / MIB);
  });
});
