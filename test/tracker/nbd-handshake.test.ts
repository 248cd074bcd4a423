/** The negotiation, byte by byte: what is said on the wire, in step after errors, however the bytes are cut. */
import { describe, expect, it } from 'vitest';
import { type Agreement, Handshake, type HandshakeStep } from '../../src/tracker/nbd/handshake.ts';
import { HELLO } from '../../src/tracker/nbd/protocol.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { contextQuery, exportQuery, OPT, optionBytes, REP, text, u16, u32, u64 } from '../support/nbd-client.ts';

const MIB = 1024 * 1024;
const devices = [
  new MemoryDevice({ name: 'first', sizeBytes: MIB }),
  new MemoryDevice({ name: 'zweite Platte ü', sizeBytes: 2 * MIB, minimumBlockBytes: 4096 }),
];
const [first, second] = devices as [MemoryDevice, MemoryDevice];
const FLAGS = u32(3);
const ACK = Buffer.alloc(0);

function reply(option: number, type: number, data: Uint8Array = ACK): Buffer {
  return Buffer.concat([Buffer.from('0003e889045565a9', 'hex'), u32(option), u32(type), u32(data.byteLength), data]);
}

/** All steps that come of the bytes. */
function steps(...pieces: readonly Uint8Array[]): readonly HandshakeStep[] {
  const handshake = new Handshake(devices);
  const found: HandshakeStep[] = [];
  for (const piece of pieces) {
    handshake.push(Buffer.from(piece));
    for (let step = handshake.next(); step !== undefined; step = handshake.next()) {
      found.push(step);
      if (step.next !== 'go on') return found;
    }
  }
  return found;
}

function answers(...pieces: readonly Uint8Array[]): Buffer {
  return Buffer.concat(steps(...pieces).map(({ answer }) => answer));
}

/** Type and text of the last reply to one option. */
function lastReply(code: number, data?: Uint8Array, before: Uint8Array = ACK): { readonly type: number } {
  const answer = steps(FLAGS, before, optionBytes(code, data)).at(-1)!.answer;
  return { type: answer.readUInt32BE(12) };
}

/** What is said about an export. */
function infos(answer: Buffer): readonly string[] {
  const found: string[] = [];
  for (let at = 0; at < answer.byteLength; at += 20 + answer.readUInt32BE(at + 16)) {
    const data = answer.subarray(at + 20, at + 20 + answer.readUInt32BE(at + 16));
    if (answer.readUInt32BE(at + 12) === REP.info) found.push(data.toString('hex'));
  }
  return found;
}

function agreement(...pieces: readonly Uint8Array[]): Agreement {
  const { next } = steps(FLAGS, ...pieces).at(-1)!;
  if (typeof next === 'string') throw new Error(next);
  return next;
}

describe('the hello', () => {
  it('is that of the fixed newstyle, with NO_ZEROES', () => {
    expect(Buffer.from(HELLO).toString('hex')).toBe('4e42444d41474943' + '49484156454f5054' + '0003');
  });

  it.each([0, 1, 2, 3])('takes client flags %i', (flags) => {
    expect(answers(u32(flags), optionBytes(OPT.abort))).toEqual(reply(OPT.abort, REP.ack));
  });

  it.each([4, 8, 0x8000_0000])('drops a client with flags %i', (flags) => {
    expect(() => steps(u32(flags))).toThrow(expect.objectContaining({ code: 'NBD_PROTOCOL' }));
  });
});

describe('options', () => {
  it('GO says size and flags, sizes of blocks, and begins the transmission', () => {
    // HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, CAN_MULTI_CONN, FAST_ZERO
    const info = Buffer.concat([u16(0), u64(MIB), u16(0x96d)]);
    const blocks = Buffer.concat([u16(3), u32(512), u32(4096), u32(32 * MIB)]);
    const expected = [reply(OPT.go, REP.info, info), reply(OPT.go, REP.info, blocks), reply(OPT.go, REP.ack)];
    const found = steps(FLAGS, optionBytes(OPT.go, exportQuery('first')));
    expect(found.map(({ answer }) => answer)).toEqual([Buffer.concat(expected)]);
    const { device, ...rest } = agreement(optionBytes(OPT.go, exportQuery('first')));
    expect(device).toBe(first);
    expect(rest).toEqual({ isStructured: false, isAligned: false, contexts: [] });
  });

  it('GO takes a client that asks for the sizes at its word', () => {
    expect(agreement(optionBytes(OPT.go, exportQuery('first', 3))).isAligned).toBe(true);
  });

  it('GO without a name means the first disk, and tells its name if asked', () => {
    const go = optionBytes(OPT.go, exportQuery('', 1, 99));
    expect(agreement(go).device).toBe(first);
    const name = reply(OPT.go, REP.info, Buffer.concat([u16(1), Buffer.from('first')]));
    expect(answers(FLAGS, go).includes(name)).toBe(true);
  });

  it('INFO says the same as GO, and the negotiation goes on', () => {
    const query = exportQuery('zweite Platte ü', 0, 1, 3);
    const [info] = steps(FLAGS, optionBytes(OPT.info, query));
    expect(info!.next).toBe('go on');
    expect(infos(info!.answer)).toEqual(infos(answers(FLAGS, optionBytes(OPT.go, query))));
    expect(infos(info!.answer)).toHaveLength(3);
  });

  it.each([OPT.info, OPT.go])('option %i of an unknown name is answered, and the next one is understood', (code) => {
    const [unknown, listed] = steps(FLAGS, optionBytes(code, exportQuery('third')), optionBytes(OPT.list));
    expect(unknown!.answer.readUInt32BE(12)).toBe(REP.unknown);
    expect(listed!.answer.readUInt32BE(12)).toBe(REP.server);
  });

  it('EXPORT_NAME is answered with size, flags and 124 zeros', () => {
    const expected = Buffer.concat([u64(2 * MIB), u16(0x96d), Buffer.alloc(124)]);
    const [step] = steps(u32(1), optionBytes(OPT.exportName, Buffer.from('zweite Platte ü')));
    expect(step!.answer).toEqual(expected);
    expect(agreement(optionBytes(OPT.exportName, Buffer.from('zweite Platte ü'))).device).toBe(second);
  });

  it('EXPORT_NAME leaves the zeros out when that was agreed on, and offers DF with structured replies', () => {
    const answer = steps(FLAGS, optionBytes(OPT.structured), optionBytes(OPT.exportName)).at(-1)!.answer;
    expect(answer).toEqual(Buffer.concat([u64(MIB), u16(0x9ed)]));
  });

  it('EXPORT_NAME of an unknown name ends the connection: there is no answer for that', () => {
    expect(() => steps(FLAGS, optionBytes(OPT.exportName, Buffer.from('third')))).toThrow(/no export "third"/);
    expect(() => steps(FLAGS, optionBytes(OPT.exportName, Buffer.alloc(4097, 'a')))).toThrow(/4097 bytes/);
  });

  it('LIST names all disks', () => {
    const listed = devices.map(({ name }) => reply(OPT.list, REP.server, text(name)));
    expect(answers(FLAGS, optionBytes(OPT.list))).toEqual(Buffer.concat([...listed, reply(OPT.list, REP.ack)]));
  });

  it('ABORT is acknowledged, with data too, and closes', () => {
    const [step] = steps(FLAGS, optionBytes(OPT.abort, Buffer.from('bye')));
    expect(step).toEqual({ answer: reply(OPT.abort, REP.ack), next: 'close' });
  });

  it.each([OPT.startTls, 4, 11, 12, 0, 0xffff_ffff])('option %i is not known, and its data is passed over', (code) => {
    const found = steps(FLAGS, optionBytes(code, Buffer.alloc(65_536, 'IHAVEOPT')), optionBytes(OPT.structured));
    expect(found.map(({ answer }) => [answer.readUInt32BE(8), answer.readUInt32BE(12)])).toEqual([
      [code, REP.unsup],
      [OPT.structured, REP.ack],
    ]);
  });

  it.each([
    ['LIST with data', OPT.list, Buffer.from('x')],
    ['STRUCTURED_REPLY with data', OPT.structured, Buffer.from('x')],
    ['GO without data', OPT.go, ACK],
    ['GO whose name ends behind the data', OPT.go, Buffer.concat([u32(6), Buffer.from('first'), u16(0)])],
    ['GO with fewer requests than it says', OPT.go, Buffer.concat([text('first'), u16(2), u16(0)])],
    ['GO with more bytes than it says', OPT.go, Buffer.concat([exportQuery('first'), u16(0)])],
    ['GO with a name of 4097 bytes', OPT.go, exportQuery('a'.repeat(4097))],
    ['INFO without a count', OPT.info, text('first')],
    [
      'contexts with a query beyond the data',
      OPT.setMeta,
      Buffer.concat([text(''), u32(1), u32(5), Buffer.from('base')]),
    ],
    ['contexts with 4 billion queries', OPT.listMeta, Buffer.concat([text(''), u32(0xffff_ffff)])],
    ['contexts with bytes too many', OPT.setMeta, Buffer.concat([contextQuery(''), u16(0)])],
  ])('%s is answered with INVALID', (_, code, data) => {
    expect(lastReply(code, data, optionBytes(OPT.structured)).type).toBe(REP.invalid);
  });

  it('longer than 64 KiB end the connection before anything is kept', () => {
    const header = Buffer.concat([Buffer.from('IHAVEOPT'), u32(OPT.go), u32(65_537)]);
    expect(() => steps(FLAGS, header)).toThrow(/65537 bytes/);
  });

  it('begin with their magic number', () => {
    expect(() => steps(FLAGS, Buffer.from('IHAVEOPS........'))).toThrow(
      expect.objectContaining({ code: 'NBD_PROTOCOL' }),
    );
  });
});

describe('contexts', () => {
  const structured = optionBytes(OPT.structured);
  const context = (option: number, id: number, name: string): Buffer =>
    reply(option, REP.meta, Buffer.concat([u32(id), Buffer.from(name)]));
  const asked = (option: number, ...queries: readonly string[]): Buffer =>
    steps(FLAGS, structured, optionBytes(option, contextQuery('first', ...queries))).at(-1)!.answer;

  it.each([
    [[], ['base:allocation', 'x-blockferry:dirty']],
    [['base:'], ['base:allocation']],
    [['x-blockferry:'], ['x-blockferry:dirty']],
    [
      ['x-blockferry:dirty', 'base:allocation', 'base:'],
      ['base:allocation', 'x-blockferry:dirty'],
    ],
    [['qemu:', 'base:allocatio', 'x-blockferry', ''], []],
  ])('a list of %j has %j', (queries, names) => {
    const expected = names.map((name) => context(OPT.listMeta, 0, name));
    expect(asked(OPT.listMeta, ...queries)).toEqual(Buffer.concat([...expected, reply(OPT.listMeta, REP.ack)]));
  });

  it.each([
    [[], []],
    [['base:', 'x-blockferry:'], []],
    [['base:allocation'], [1]],
    [['x-blockferry:dirty', 'x-blockferry:dirty', 'qemu:dirty-bitmap:b0'], [2]],
    [
      ['x-blockferry:dirty', 'base:allocation'],
      [1, 2],
    ],
  ])('a choice of %j takes %j', (queries, ids) => {
    const names = ['', 'base:allocation', 'x-blockferry:dirty'];
    const expected = ids.map((id) => context(OPT.setMeta, id, names[id]!));
    expect(asked(OPT.setMeta, ...queries)).toEqual(Buffer.concat([...expected, reply(OPT.setMeta, REP.ack)]));
    const go = optionBytes(OPT.go, exportQuery(''));
    const choice = optionBytes(OPT.setMeta, contextQuery('first', ...queries));
    expect(agreement(structured, choice, go).contexts.map(({ id }) => id)).toEqual(ids);
  });

  it('need structured replies', () => {
    expect(lastReply(OPT.setMeta, contextQuery('', 'base:allocation')).type).toBe(REP.invalid);
    expect(lastReply(OPT.listMeta, contextQuery('')).type).toBe(REP.invalid);
  });

  it('are of disks that exist', () => {
    expect(lastReply(OPT.setMeta, contextQuery('third', 'base:allocation'), structured).type).toBe(REP.unknown);
  });

  it('chosen for one disk are not those of another', () => {
    const choice = optionBytes(OPT.setMeta, contextQuery('first', 'base:allocation'));
    const go = optionBytes(OPT.go, exportQuery('zweite Platte ü'));
    expect(agreement(structured, choice, go).contexts).toEqual([]);
  });

  it('of an earlier choice are gone after a later one, also one that failed', () => {
    const choice = optionBytes(OPT.setMeta, contextQuery('', 'base:allocation'));
    const go = optionBytes(OPT.go, exportQuery(''));
    for (const later of [contextQuery(''), contextQuery('third'), Buffer.alloc(3)]) {
      expect(agreement(structured, choice, optionBytes(OPT.setMeta, later), go).contexts).toEqual([]);
    }
  });
});

describe('a negotiation in pieces', () => {
  const whole = Buffer.concat([
    FLAGS,
    optionBytes(OPT.startTls),
    optionBytes(OPT.structured),
    optionBytes(OPT.list),
    optionBytes(OPT.listMeta, contextQuery('first')),
    optionBytes(OPT.setMeta, contextQuery('first', 'base:allocation')),
    optionBytes(OPT.info, exportQuery('nobody')),
    optionBytes(OPT.go, exportQuery('first', 3)),
  ]);
  const expected = answers(whole);

  it('is the same wherever it is cut', () => {
    for (let at = 0; at <= whole.byteLength; at += 1) {
      expect(answers(whole.subarray(0, at), whole.subarray(at)), `cut at ${at}`).toEqual(expected);
    }
  });

  it('is the same byte by byte', () => {
    expect(answers(...[...whole].map((byte) => Buffer.from([byte])))).toEqual(expected);
  });

  it('leaves what comes behind it to the transmission', () => {
    const handshake = new Handshake(devices);
    handshake.push(Buffer.concat([whole, Buffer.from('request')]));
    let last: HandshakeStep | undefined;
    while (last === undefined || last.next === 'go on') last = handshake.next();
    expect(handshake.rest().toString()).toBe('request');
  });
});
