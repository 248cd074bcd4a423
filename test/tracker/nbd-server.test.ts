/** What the server does for a client in transmission, request by request, against a byte-exact model. */
import { connect } from 'node:net';
import { describe, expect, it, test, vi } from 'vitest';
import { BlockferryError } from '../../src/errors.ts';
import { Dice } from '../support/dice.ts';
import { MemoryDevice, UNIT_BYTES } from '../support/memory-device.ts';
import {
  CMD,
  exportQuery,
  FLAG,
  NbdClient,
  OPT,
  optionBytes,
  type Reply,
  requestBytes,
  u32,
} from '../support/nbd-client.ts';
import { closeGate, startNbdLab } from './nbd-lab.ts';

const [EIO, EINVAL, ENOSPC] = [5, 22, 28];
const CHUNK = { data: 1, hole: 2, status: 5, error: 0x8001 };

/** The bytes that the chunks of a READ stand for; fails where they overlap or leave something out. */
function assembled(replies: readonly Reply[], offset: number, lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  const seen = new Uint8Array(lengthBytes);
  for (const { chunk, data } of replies) {
    const at = Number(data.readBigUInt64BE(0)) - offset;
    const length = chunk === CHUNK.hole ? data.readUInt32BE(8) : data.byteLength - 8;
    expect(seen.subarray(at, at + length).every((byte) => byte === 0)).toBe(true);
    seen.fill(1, at, at + length);
    if (chunk === CHUNK.data) data.copy(bytes, at, 8);
  }
  expect(seen.every((byte) => byte === 1)).toBe(true);
  return bytes;
}

/** Lengths and flags of a status. */
function extents({ data }: Reply): readonly (readonly [number, number])[] {
  return Array.from({ length: (data.byteLength - 4) / 8 }, (_, i) => [
    data.readUInt32BE(4 + 8 * i),
    data.readUInt32BE(8 + 8 * i),
  ]);
}

describe('reads and writes', () => {
  test.for([false, true])('are what the model says (structured replies: %s)', async (structured) => {
    const { device, open } = await startNbdLab([new MemoryDevice({ sizeBytes: 4 * 1024 * 1024 })]);
    const client = await open({ structured });
    const model = Buffer.alloc(device.sizeBytes);
    const dice = new Dice(structured ? 1 : 2);
    for (let i = 0; i < 400; i += 1) {
      const offset = dice.below(device.sizeBytes);
      const length = 1 + dice.below(Math.min(device.sizeBytes - offset, dice.pick([100, 5000, 300_000])));
      const type = dice.pick([CMD.read, CMD.write, CMD.zeroes]);
      const data = type === CMD.write ? dice.bytes(length) : Buffer.alloc(0);
      const replies = await client.ask({ type, cookie: i, offset, length, data });
      expect(replies.every(({ cookie, error }) => cookie === BigInt(i) && error === 0)).toBe(true);
      if (type !== CMD.read) model.fill(0, offset, offset + length);
      data.copy(model, offset);
      if (type !== CMD.read) continue;
      const bytes = structured ? assembled(replies, offset, length) : replies[0]!.data;
      expect(bytes.equals(model.subarray(offset, offset + length)), `read ${length} at ${offset}`).toBe(true);
    }
    expect(device.content.equals(model)).toBe(true);
  });

  it('are answered as they end, whatever their order', async () => {
    const { device, open } = await startNbdLab();
    const gate = closeGate(device, ({ offset }) => offset === 0);
    const client = await open();
    client.send(requestBytes({ type: CMD.write, cookie: 1, offset: 0, data: Buffer.alloc(512, 1) }));
    client.send(requestBytes({ type: CMD.write, cookie: 2, offset: 512, data: Buffer.alloc(512, 2) }));
    expect((await client.reply()).cookie).toBe(2n);
    gate.open();
    expect((await client.reply()).cookie).toBe(1n);
    expect(device.content.subarray(0, 1024)).toEqual(Buffer.concat([Buffer.alloc(512, 1), Buffer.alloc(512, 2)]));
  });

  it('of one connection are seen by all, and one flush is enough for all', async () => {
    const { device, open } = await startNbdLab();
    const [one, other] = [await open(), await open()];
    const calls: string[] = [];
    device.gate = ({ name }) => {
      calls.push(name);
      return undefined;
    };
    await one.ask({ type: CMD.write, offset: 4096, data: Buffer.from('from one to the other') });
    expect((await other.ask({ type: CMD.read, offset: 4101, length: 3 }))[0]!.data.toString()).toBe('one');
    expect(await other.errorOf({ type: CMD.flush })).toBe(0);
    expect(calls).toEqual(['write', 'read', 'flush']);
  });

  it('with FUA are passed on as such, and so are zeros and trims', async () => {
    const { device, open } = await startNbdLab();
    const client = await open();
    const calls: unknown[] = [];
    device.gate = ({ name, fua, unmap }) => {
      calls.push({ name, fua, unmap });
      return undefined;
    };
    await client.ask({ type: CMD.write, data: Buffer.alloc(512) });
    await client.ask({ type: CMD.write, flags: FLAG.fua, data: Buffer.alloc(512) });
    await client.ask({ type: CMD.trim, flags: FLAG.fua, length: 512 });
    await client.ask({ type: CMD.zeroes, length: 512 });
    await client.ask({ type: CMD.zeroes, flags: FLAG.noHole | FLAG.fua, length: 512 });
    await client.ask({ type: CMD.zeroes, flags: FLAG.fastZero, length: 512 });
    expect(calls).toEqual([
      { name: 'write', fua: false, unmap: undefined },
      { name: 'write', fua: true, unmap: undefined },
      { name: 'zero', fua: true, unmap: true },
      { name: 'zero', fua: false, unmap: true },
      { name: 'zero', fua: true, unmap: false },
      { name: 'zero', fua: false, unmap: true },
    ]);
  });

  it('may begin inside a block, unless the client asked for the sizes of blocks', async () => {
    const { address, open } = await startNbdLab();
    expect(await (await open()).errorOf({ type: CMD.write, offset: 3, data: Buffer.from('odd') })).toBe(0);
    const strict = await NbdClient.greet(address);
    await strict.option(OPT.go, exportQuery('', 3));
    expect(await strict.errorOf({ type: CMD.write, offset: 3, data: Buffer.from('odd') })).toBe(EINVAL);
    expect(await strict.errorOf({ type: CMD.read, offset: 512, length: 512 })).toBe(0);
    await strict.destroy();
  });

  it('may come with the handshake in one piece', async () => {
    const { address } = await startNbdLab();
    const client = await NbdClient.dial(address);
    const write = requestBytes({ type: CMD.write, cookie: 7, data: Buffer.from('impatient') });
    const read = requestBytes({ type: CMD.read, cookie: 8, length: 9 });
    client.send(Buffer.concat([u32(3), optionBytes(OPT.exportName), write, read, requestBytes({ type: CMD.disc })]));
    const said = await client.readToEnd();
    expect(said.byteLength).toBe(18 + 10 + 16 + 16 + 9);
    expect(said.subarray(-9).toString()).toBe('impatient');
  });
});

describe('structured reads', () => {
  /** Data in every second unit of 64 KiB, from the second on. */
  async function stripedLab(units: number) {
    const lab = await startNbdLab([new MemoryDevice({ sizeBytes: units * UNIT_BYTES })]);
    for (let unit = 1; unit < units; unit += 2) {
      await lab.device.write(new Dice(unit).bytes(UNIT_BYTES), unit * UNIT_BYTES, false);
    }
    return { ...lab, client: await lab.open({ structured: true }) };
  }

  it('of little are one chunk of data', async () => {
    const { client, device } = await stripedLab(2);
    const replies = await client.ask({ type: CMD.read, offset: UNIT_BYTES - 100, length: 4096 });
    expect(replies.map(({ chunk }) => chunk)).toEqual([CHUNK.data]);
    const expected = device.content.subarray(UNIT_BYTES - 100, UNIT_BYTES + 3996);
    expect(assembled(replies, UNIT_BYTES - 100, 4096).equals(expected)).toBe(true);
  });

  it('leave out what the disk knows to be zeros', async () => {
    const { client, device } = await stripedLab(5);
    const [offset, length] = [1000, 5 * UNIT_BYTES - 2000];
    const replies = await client.ask({ type: CMD.read, offset, length });
    expect(replies.map(({ chunk }) => chunk)).toEqual([CHUNK.hole, CHUNK.data, CHUNK.hole, CHUNK.data, CHUNK.hole]);
    expect(replies.map(({ isLast }) => isLast)).toEqual([false, false, false, false, true]);
    expect(assembled(replies, offset, length).equals(device.content.subarray(offset, offset + length))).toBe(true);
  });

  it('of many pieces take the last of them as one', async () => {
    const { client, device } = await stripedLab(40);
    const replies = await client.ask({ type: CMD.read, length: device.sizeBytes });
    expect(replies).toHaveLength(16);
    expect(assembled(replies, 0, device.sizeBytes).equals(device.content)).toBe(true);
  });

  it('are one chunk of data if the client wants no fragments', async () => {
    const { client, device } = await stripedLab(5);
    const replies = await client.ask({ type: CMD.read, flags: FLAG.df, length: device.sizeBytes });
    expect(replies.map(({ chunk }) => chunk)).toEqual([CHUNK.data]);
    expect(assembled(replies, 0, device.sizeBytes).equals(device.content)).toBe(true);
  });

  test.for(['allocation', 'read'] as const)('say so when the %s fails', async (failing) => {
    const { client, device, events } = await stripedLab(4);
    device.gate = ({ name, offset }) =>
      name === failing && offset !== UNIT_BYTES ? Promise.reject(new Error('bad sector')) : undefined;
    const replies = await client.ask({ type: CMD.read, length: 4 * UNIT_BYTES });
    expect(replies.map(({ chunk, error }) => [chunk, error])).toEqual([[CHUNK.error, EIO]]);
    expect(events.at(-1)).toMatchObject({ code: 'DEVICE_FAILED' });
    device.gate = undefined;
    expect(await client.errorOf({ type: CMD.read, length: 4 * UNIT_BYTES })).toBe(0);
  });
});

describe('refusals', () => {
  it('are said in numbers, and the data of a write is passed over', async () => {
    const { device, open } = await startNbdLab();
    const client = await open();
    const data = Buffer.alloc(200_000, requestBytes({ type: CMD.disc }));
    expect(await client.errorOf({ type: CMD.write, offset: device.sizeBytes - 1, data })).toBe(ENOSPC);
    expect(await client.errorOf({ type: CMD.write, flags: FLAG.df, data })).toBe(EINVAL);
    expect(await client.errorOf({ type: CMD.read, offset: device.sizeBytes, length: 1 })).toBe(EINVAL);
    expect(await client.errorOf({ type: 1234 })).toBe(EINVAL);
    expect(await client.errorOf({ type: CMD.status, length: 1 })).toBe(EINVAL);
    expect(await client.errorOf({ type: CMD.flush })).toBe(0);
    expect(device.content.every((byte) => byte === 0)).toBe(true);
  });

  it('of structured replies are chunks with a reason', async () => {
    const { device, open } = await startNbdLab();
    const client = await open({ structured: true });
    for (const type of [CMD.read, CMD.write, CMD.trim, 1234]) {
      const [reply] = await client.ask({
        type,
        cookie: 5,
        offset: device.sizeBytes,
        length: type === CMD.write ? 0 : 9,
      });
      expect(reply).toMatchObject({ chunk: CHUNK.error, cookie: 5n, isLast: true });
      expect(reply!.data.subarray(6)).toHaveLength(reply!.data.readUInt16BE(4));
      expect(reply!.data.subarray(6).toString()).toMatch(/^the /);
    }
  });
});

describe('BLOCK_STATUS', () => {
  const contexts = ['base:allocation', 'x-blockferry:dirty'];

  it('tells each context that was chosen, neighbours joined', async () => {
    const { device, open } = await startNbdLab();
    await device.write(Buffer.alloc(3 * UNIT_BYTES, 1), 2 * UNIT_BYTES, false);
    device.clean();
    await device.zero(3 * UNIT_BYTES, 100, { unmap: false, fua: false });
    const client = await open({ structured: true, contexts });
    const replies = await client.ask({ type: CMD.status, offset: UNIT_BYTES, length: 8 * UNIT_BYTES });
    expect(replies.map(({ chunk, isLast, data }) => [chunk, isLast, data.readUInt32BE(0)])).toEqual([
      [CHUNK.status, false, 1],
      [CHUNK.status, true, 2],
    ]);
    expect(extents(replies[0]!)).toEqual([
      [UNIT_BYTES, 3],
      [3 * UNIT_BYTES, 0],
      [4 * UNIT_BYTES, 3],
    ]);
    expect(extents(replies[1]!)).toEqual([
      [2 * UNIT_BYTES, 0],
      [UNIT_BYTES, 1],
      [5 * UNIT_BYTES, 0],
    ]);
  });

  it('tells one extent, inside the range, if one is asked for', async () => {
    const { open } = await startNbdLab();
    const client = await open({ structured: true, contexts: ['x-blockferry:dirty'] });
    const [reply] = await client.ask({ type: CMD.status, flags: FLAG.reqOne, offset: 512, length: 1024 });
    expect(extents(reply!)).toEqual([[1024, 0]]);
  });

  it('stops after 4096 extents, and the client asks again from there', async () => {
    const device = new MemoryDevice({ sizeBytes: 5000 * UNIT_BYTES });
    const { open } = await startNbdLab([device]);
    for (let unit = 0; unit < 5000; unit += 2) await device.write(Buffer.from('x'), unit * UNIT_BYTES, false);
    const client = await open({ structured: true, contexts: ['base:allocation'] });
    const [reply] = await client.ask({ type: CMD.status, length: device.sizeBytes });
    expect(extents(reply!)).toHaveLength(4096);
    const [rest] = await client.ask({
      type: CMD.status,
      offset: 4096 * UNIT_BYTES,
      length: device.sizeBytes - 4096 * UNIT_BYTES,
    });
    expect(extents(rest!)).toHaveLength(904);
  });

  it('is one chunk that says no when one of the contexts fails', async () => {
    const { device, open } = await startNbdLab();
    const client = await open({ structured: true, contexts });
    device.gate = ({ name }) => (name === 'dirty' ? Promise.reject(new Error('map is gone')) : undefined);
    const replies = await client.ask({ type: CMD.status, length: UNIT_BYTES });
    expect(replies.map(({ chunk, error }) => [chunk, error])).toEqual([[CHUNK.error, EIO]]);
  });

  it('knows nothing where the disk says nothing', async () => {
    const { device, open } = await startNbdLab();
    vi.spyOn(device, 'allocation').mockImplementation(async function* () {});
    const client = await open({ structured: true, contexts });
    expect(extents((await client.ask({ type: CMD.status, length: 4096 }))[0]!)).toEqual([[4096, 0]]);
  });
});

describe('a disk that fails', () => {
  const caused = (code: string): Error => Object.assign(new Error(code), { code });

  test.for([
    ['EIO', new BlockferryError('DISK_UNREADABLE', 'sector 5', { cause: caused('EIO') }), EIO],
    ['ENOSPC', new BlockferryError('OUTPUT_FAILED', 'x.vhdx', { cause: caused('ENOSPC') }), ENOSPC],
    ['ENOSPC', caused('EDQUOT'), ENOSPC],
    ['ENOSPC', new Error('deep', { cause: new Error('deeper', { cause: caused('EFBIG') }) }), ENOSPC],
    ['EIO', new RangeError('a bug'), EIO],
    ['EIO', 'no error at all', EIO],
  ] as const)('costs the client %s (%s), and nobody anything else', async ([, failure, error]) => {
    const { device, open, events } = await startNbdLab();
    const client = await open();
    device.gate = () => Promise.reject(failure);
    expect(await client.errorOf({ type: CMD.read, offset: 512, length: 1024 })).toBe(error);
    expect(await client.errorOf({ type: CMD.write, data: Buffer.alloc(70_000) })).toBe(error);
    expect(await client.errorOf({ type: CMD.zeroes, length: 1 })).toBe(error);
    expect(await client.errorOf({ type: CMD.flush })).toBe(error);
    const failed = events.filter(({ code }) => code === 'DEVICE_FAILED');
    expect(failed.map(({ error: reported }) => reported)).toEqual([failure, failure, failure, failure]);
    expect(failed[0]!.message).toMatch(/^NBD client 1 read of 1024 bytes at 512 of disk "disk" failed: /);
    device.gate = undefined;
    expect(await client.errorOf({ type: CMD.flush })).toBe(0);
  });

  it('may still look at what it was given: that memory is not used again', async () => {
    const { device, open } = await startNbdLab();
    const client = await open();
    const kept: Uint8Array[] = [];
    vi.spyOn(device, 'write').mockImplementation(async (bytes) => {
      kept.push(bytes);
      if (kept.length % 2 === 1) throw new Error('half of it is still on its way');
    });
    // Large enough to be collected from several pieces.
    for (let i = 1; i <= 4; i += 1) await client.ask({ type: CMD.write, data: Buffer.alloc(300_000, i) });
    expect(kept[0]!.every((byte) => byte === 1)).toBe(true);
    expect(kept[2]!.every((byte) => byte === 3)).toBe(true);
    kept.length = 0;
    vi.spyOn(device, 'read').mockImplementation(async (into) => {
      kept.push(into);
      if (kept.length === 1) throw new Error('half of it is still to come');
    });
    for (let i = 0; i < 3; i += 1) await client.ask({ type: CMD.read, length: 4096 });
    const [failed, second, third] = kept.map(({ buffer }) => buffer);
    expect([second === failed, third === failed, third === second]).toEqual([false, false, true]);
  });

  it('costs no memory', async () => {
    const { device, open } = await startNbdLab();
    const client = await open();
    device.gate = () => Promise.reject(new Error('bad sector'));
    const length = device.sizeBytes;
    for (let i = 0; i < 100; i += 1) {
      expect(await client.errorOf({ type: CMD.read, length })).toBe(EIO);
      expect(await client.errorOf({ type: CMD.write, data: Buffer.alloc(length) })).toBe(EIO);
    }
  });

  it('may throw where it should reject', async () => {
    const { device, open } = await startNbdLab();
    const client = await open();
    for (const name of ['read', 'write', 'flush', 'zero'] as const) {
      vi.spyOn(device, name).mockImplementation(() => {
        throw new TypeError('not a promise');
      });
    }
    expect(await client.errorOf({ type: CMD.read, length: 1024 })).toBe(EIO);
    expect(await client.errorOf({ type: CMD.write, data: Buffer.alloc(1000) })).toBe(EIO);
    expect(await client.errorOf({ type: CMD.flush })).toBe(EIO);
    expect(await client.errorOf({ type: CMD.trim, length: 5 })).toBe(EIO);
  });
});

describe('a client that leaves', () => {
  test.for(['DISC', 'the end of its stream'])('with %s has its answers first', async (how) => {
    const { device, address, events } = await startNbdLab();
    const gate = closeGate(device);
    const socket = connect({ path: address.path, allowHalfOpen: true });
    const said: Buffer[] = [];
    socket.on('data', (piece) => said.push(piece));
    const ended = new Promise((resolve) => socket.once('end', resolve));
    const write = requestBytes({ type: CMD.write, data: Buffer.alloc(512, 1) });
    socket.write(Buffer.concat([u32(3), optionBytes(OPT.exportName), write, write]));
    if (how === 'DISC') socket.write(requestBytes({ type: CMD.disc }));
    else socket.end();
    await vi.waitFor(() => expect(gate.waiting()).toBe(2));
    gate.open();
    await ended;
    expect(Buffer.concat(said).byteLength).toBe(18 + 10 + 16 + 16);
    socket.destroy();
    await vi.waitFor(() => expect(events.at(-1)!.code).toBe('CLIENT_CLOSED'));
  });

  it('without a word leaves its writes behind, and they end', async () => {
    const { device, open, events } = await startNbdLab();
    const gate = closeGate(device);
    const client = await open();
    client.send(requestBytes({ type: CMD.write, data: Buffer.alloc(512, 0xee) }));
    client.send(requestBytes({ type: CMD.write, data: Buffer.alloc(512, 0xdd) }).subarray(0, 100));
    await vi.waitFor(() => expect(gate.waiting()).toBe(1));
    await client.destroy();
    gate.open();
    await vi.waitFor(() => expect(events.at(-1)!.code).toBe('CLIENT_CLOSED'));
    expect(device.content.subarray(0, 512)).toEqual(Buffer.alloc(512, 0xee));
  });

  it('and what it breaks, is told', async () => {
    const { open, events } = await startNbdLab();
    const client = await open();
    client.send(Buffer.alloc(28, 'x'));
    await client.readToEnd();
    await vi.waitFor(() => expect(events.map(({ code }) => code)).toContain('CLIENT_CLOSED'));
    expect(events.map(({ code, message }) => [code, message])).toEqual([
      ['CLIENT_OPENED', 'NBD client 1 works with disk "disk"'],
      ['CLIENT_DROPPED', 'NBD client 1 was cut off: a request begins with 0x78787878, not with its magic number'],
      ['CLIENT_CLOSED', 'NBD client 1 has left disk "disk"'],
    ]);
  });
});
