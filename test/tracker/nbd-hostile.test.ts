/**
 * Clients that say anything at all. Sessions that were valid are damaged: bits, lengths, order, ends. Whatever comes, the
 * server answers in well-formed replies or drops the connection for NBD_PROTOCOL, asks nothing impossible of its disk,
 * holds no memory afterwards, and serves the next client.
 */
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import { nodePorts } from '../../src/host/index.ts';
import { Connection } from '../../src/tracker/nbd/connection.ts';
import { Handshake } from '../../src/tracker/nbd/handshake.ts';
import type { NbdEvent } from '../../src/tracker/nbd/index.ts';
import { ConnectionMemory, ServerMemory } from '../../src/tracker/nbd/memory.ts';
import { refusalOf } from '../../src/tracker/nbd/request.ts';
import { RequestReader } from '../../src/tracker/nbd/request-reader.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import {
  CMD,
  contextQuery,
  exportQuery,
  NbdClient,
  OPT,
  optionBytes,
  type RequestFields,
  requestBytes,
  u32,
} from '../support/nbd-client.ts';
import { startWatchdog } from '../support/watchdog.ts';
import { newFolder } from './nbd-lab.ts';

const SEED = numberFromEnvironment('BLOCKFERRY_SEED', 1);
const FIRST_CASE = numberFromEnvironment('BLOCKFERRY_CASE', 0);
const CASES = numberFromEnvironment('BLOCKFERRY_CASES', 40_000);
/** Sessions over a socket cost a hundred times as much. */
const SOCKET_CASES = Math.max(1, Math.floor(CASES / 10));
const HANG_MS = 20_000;
const MIB = 1024 * 1024;
const MEMORY_GROWTH_MAX = 200 * MIB;

const devices = [new MemoryDevice({ sizeBytes: 2 * MIB }), new MemoryDevice({ name: 'other', sizeBytes: 65_536 })];
/** Numbers that break what was not checked. */
const NASTY = [
  0,
  1,
  2,
  0x7f,
  0xff,
  0x7fff_ffff,
  0x8000_0000,
  0xffff_fff0,
  0xffff_ffff,
  65_536,
  65_537,
  32 * MIB,
  32 * MIB + 1,
];

/** A session in its messages. */
function session(dice: Dice): Buffer[] {
  const name = dice.pick(['', 'disk', 'other']);
  const option = (): Buffer =>
    dice.pick([
      () => optionBytes(OPT.list),
      () => optionBytes(OPT.info, exportQuery(dice.pick(['', 'disk', 'nobody']), 0, 1, 3)),
      () => optionBytes(OPT.structured),
      () => optionBytes(OPT.listMeta, contextQuery(name, 'base:')),
      () => optionBytes(OPT.setMeta, contextQuery(name, 'base:allocation', 'x-blockferry:dirty')),
      () => optionBytes(OPT.startTls),
      () => optionBytes(dice.below(20), dice.bytes(dice.below(100))),
    ])();
  const messages = [u32(3), ...(dice.oneIn(4) ? [] : [optionBytes(OPT.structured)])];
  for (let i = dice.below(4); i > 0; i -= 1) messages.push(option());
  messages.push(optionBytes(OPT.go, exportQuery(name, ...(dice.oneIn(2) ? [3] : []))));
  for (let i = dice.below(12); i > 0; i -= 1) messages.push(requestBytes(request(dice)));
  if (dice.oneIn(2)) messages.push(requestBytes({ type: CMD.disc }));
  return messages;
}

function request(dice: Dice): RequestFields {
  const type = dice.pick([...Object.values(CMD), CMD.write, CMD.read]);
  const length = dice.pick([1, 512, 4096, 65_536, 200_000]);
  const offset = dice.below(2 * MIB);
  const data = type === CMD.write ? Buffer.alloc(length, dice.next()) : Buffer.alloc(0);
  return { type, flags: dice.oneIn(3) ? dice.below(32) : 0, cookie: dice.next(), offset, length, data };
}

/** What becomes of a session in the wrong hands. */
function damaged(messages: readonly Buffer[], dice: Dice): Buffer {
  const list = [...messages];
  for (let i = dice.below(3); i > 0; i -= 1) {
    const at = dice.below(list.length);
    dice.pick([
      () => list.splice(at, 1),
      () => list.splice(at, 0, list[dice.below(list.length)]!),
      () => list.splice(at, 0, dice.bytes(dice.below(64))),
    ])();
    if (list.length === 0) list.push(u32(3));
  }
  const bytes = Buffer.concat(list);
  if (bytes.byteLength === 0) return bytes;
  // Most damage where it is met first: behind the data of a large write nobody looks.
  const place = (): number => dice.below(Math.min(bytes.byteLength, dice.pick([24, 200, 1000, bytes.byteLength])));
  for (let i = dice.below(4); i > 0; i -= 1) {
    const at = place();
    dice.pick([
      () => bytes.writeUInt8(dice.below(256), at),
      () => bytes.writeUInt8(bytes[at]! ^ (1 << dice.below(8)), at),
      () => at + 4 <= bytes.byteLength && bytes.writeUInt32BE(dice.pick(NASTY), at),
    ])();
  }
  return dice.oneIn(4) ? bytes.subarray(0, place()) : bytes;
}

function cut(bytes: Buffer, dice: Dice): readonly Buffer[] {
  const pieces: Buffer[] = [];
  const sizeMax = dice.pick([7, 100, 5000, 65_536]);
  for (let at = 0; at < bytes.byteLength; ) {
    // Small pieces cost time, and the data of a large write is the same in any.
    const end = at + 1 + dice.below(pieces.length < 200 ? sizeMax : 65_536);
    pieces.push(Buffer.from(bytes.subarray(at, end)));
    at = end;
  }
  return pieces;
}

/** Handshake and requests without a socket. How it ended. */
function parse(pieces: readonly Buffer[], memory: ConnectionMemory): string {
  const handshake = new Handshake(devices);
  let reader: RequestReader | undefined;
  let requests = 0;
  const readOn = (piece: Buffer): void => {
    reader!.push(piece);
    for (let next = reader!.next(); next !== undefined; next = reader!.next()) {
      requests += 1;
      if (next.payload !== undefined) expect(next.payload.byteLength).toBe(next.lengthBytes);
      if (next.lease !== undefined) memory.end(next.lease, true);
    }
  };
  try {
    for (const piece of pieces) {
      if (reader !== undefined) {
        readOn(piece);
        continue;
      }
      handshake.push(piece);
      for (let step = handshake.next(); step !== undefined; step = handshake.next()) {
        if (step.next === 'close') return 'aborted';
        if (step.next === 'go on') continue;
        const { device, isStructured, isAligned, contexts } = step.next;
        const terms = {
          sizeBytes: device.sizeBytes,
          alignmentBytes: isAligned ? device.minimumBlockBytes : 1,
          zeroIsFast: device.zeroIsFast,
          isStructured,
          hasContexts: contexts.length > 0,
        };
        reader = new RequestReader((next) => refusalOf(next, terms), memory);
        readOn(handshake.rest());
        break;
      }
    }
    return reader === undefined ? 'unfinished' : requests > 0 ? 'served' : 'idle';
  } catch (error) {
    if (!isBlockferryError(error, 'NBD_PROTOCOL')) throw error;
    return 'dropped';
  } finally {
    reader?.abandon();
  }
}

/** Fails unless the server said hello, option replies, then chunks or simple replies without data; the last may be cut short. */
function requireWellFormed(said: Buffer): void {
  expect(said.subarray(0, 18).toString('latin1')).toBe('NBDMAGICIHAVEOPT\x00\x03'.slice(0, said.byteLength));
  for (let at = 18; at + 28 <= said.byteLength; ) {
    if (said.readBigUInt64BE(at) === 0x3e889045565a9n) at += 20 + said.readUInt32BE(at + 16);
    else if (said.readUInt32BE(at) === 0x67446698) at += 16;
    else {
      expect(said.readUInt32BE(at)).toBe(0x668e33ef);
      expect([0, 1]).toContain(said.readUInt16BE(at + 4));
      expect([1, 2, 5, 0x8001]).toContain(said.readUInt16BE(at + 6));
      at += 20 + said.readUInt32BE(at + 16);
    }
  }
}

describe('hostile clients', () => {
  it(`of ${CASES} kinds are understood or refused, by the parsers alone`, async () => {
    const watchdog = startWatchdog(HANG_MS, `hostile NBD bytes, seed ${SEED}`);
    const server = new ServerMemory(nodePorts().clock, () => {});
    const outcomes: Record<string, number> = {};
    try {
      for (let caseNumber = FIRST_CASE; caseNumber < FIRST_CASE + CASES; caseNumber += 1) {
        watchdog.alive(caseNumber);
        const dice = new Dice(SEED, caseNumber);
        const pieces = cut(damaged(session(dice), dice), dice);
        const outcome = parse(pieces, new ConnectionMemory(server, () => {}));
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
        expect(server.heldBytes, `seed ${SEED}, case ${caseNumber}`).toBe(0);
      }
    } finally {
      await watchdog.stop();
    }
    // The campaign gets everywhere, or it is none.
    for (const outcome of ['served', 'idle', 'dropped', 'unfinished', 'aborted']) {
      if (CASES >= 10_000) expect(outcomes[outcome], outcome).toBeGreaterThan(CASES / 1000);
    }
  });

  it(`of ${SOCKET_CASES} kinds are outlived by the server`, async () => {
    const memory = new ServerMemory(nodePorts().clock, () => {});
    const events: NbdEvent[] = [];
    const connections = new Set<Connection>();
    let accepted = 0;
    const server: Server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      accepted += 1;
      const report = (event: NbdEvent): number => events.push(event);
      const connection = new Connection(socket, { id: accepted, devices, memory, clock: nodePorts().clock, report });
      connections.add(connection);
      void connection.closed.then(() => connections.delete(connection));
    });
    const path = join(await newFolder(), 's');
    server.listen(path);
    await once(server, 'listening');
    const watchdog = startWatchdog(HANG_MS, `hostile NBD clients, seed ${SEED}`);
    const good = await NbdClient.open({ path });
    const memoryBytes = process.memoryUsage.rss();
    let grownBytes = 0;
    const dropped = (): number => events.filter(({ code }) => code === 'CLIENT_DROPPED').length;
    try {
      for (let caseNumber = FIRST_CASE; caseNumber < FIRST_CASE + SOCKET_CASES; caseNumber += 1) {
        watchdog.alive(caseNumber);
        const dice = new Dice(SEED, caseNumber);
        const bytes = damaged(session(dice), dice);
        const isStructured = bytes.includes(optionBytes(OPT.structured));
        const said = await talk(await NbdClient.dial({ path }), cut(bytes, dice), dice);
        if (isStructured && said !== undefined) requireWellFormed(said);
        while (connections.size > 1) await [...connections].at(-1)!.closed;
        expect(memory.heldBytes, `seed ${SEED}, case ${caseNumber}`).toBe(0);
        if (caseNumber % 100 === 0) {
          grownBytes = Math.max(grownBytes, process.memoryUsage.rss() - memoryBytes);
          const data = Buffer.from(`good bytes ${caseNumber}`);
          expect(await good.errorOf({ type: CMD.write, offset: 1024, data })).toBe(0);
          const [reply] = await good.ask({ type: CMD.read, offset: 1024, length: data.byteLength });
          expect(reply!.data).toEqual(data);
        }
      }
    } finally {
      await watchdog.stop();
      await good.destroy();
      server.close();
    }
    const wrong = events.filter(({ code, error }) =>
      code === 'CLIENT_DROPPED' ? !isBlockferryError(error, 'NBD_PROTOCOL') : code === 'DEVICE_FAILED',
    );
    expect(wrong).toEqual([]);
    expect(grownBytes).toBeLessThan(MEMORY_GROWTH_MAX);
    if (SOCKET_CASES >= 1000) expect(dropped()).toBeGreaterThan(SOCKET_CASES / 10);
  });
});

/** Says it all, then ends the stream, or hangs up at some moment. What the server said; undefined after hanging up. */
async function talk(client: NbdClient, pieces: readonly Buffer[], dice: Dice): Promise<Buffer | undefined> {
  const { socket }: { readonly socket: Socket } = client;
  const hangUpAfter = dice.oneIn(5) ? dice.below(pieces.length + 1) : undefined;
  for (const [i, piece] of pieces.entries()) {
    if (i === hangUpAfter) break;
    socket.write(piece);
    // Some pieces arrive alone, most together.
    if (dice.oneIn(20)) await new Promise((resolve) => setImmediate(resolve));
  }
  if (hangUpAfter !== undefined) {
    await client.destroy();
    return undefined;
  }
  socket.end();
  const said = await client.readToEnd();
  await client.destroy();
  return said;
}
