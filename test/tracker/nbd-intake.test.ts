/** Reading a client's socket into memory that is used again: every byte in order, and the server still knows who is there. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { expect, it, onTestFinished } from 'vitest';
import { openIntake, READ_BYTES } from '../../src/tracker/nbd/intake.ts';
import { Dice } from '../support/dice.ts';

const MIB = 1024 * 1024;

interface Lab {
  readonly server: Server;
  readonly path: string;
  readonly received: Buffer[];
  /** Buffers that were handed out and are not back. */
  readonly out: Set<Buffer>;
  /** Pieces that came in a buffer of ours. */
  inBuffers: number;
  readonly ended: Promise<void>;
}

/** A server that keeps what it gets, and spoils each buffer when it gives it back. */
async function newLab(): Promise<Lab> {
  const folder = await mkdtemp(join(tmpdir(), 'blockferry-intake-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const spare: Buffer[] = [];
  let end = (): void => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const giveBack = (buffer: Buffer): void => {
    lab.out.delete(buffer);
    spare.push(buffer.fill(0xee));
  };
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (accepted) => {
    const socket = openIntake(accepted, {
      takeBuffer: () => {
        const buffer = spare.pop() ?? Buffer.alloc(READ_BYTES);
        lab.out.add(buffer);
        return buffer;
      },
      giveBack,
      onPiece: (piece, buffer) => {
        lab.received.push(Buffer.from(piece));
        if (buffer === undefined) return;
        lab.inBuffers += 1;
        giveBack(buffer);
      },
    });
    socket.on('end', () => socket.end('seen'));
    socket.on('close', end);
  });
  const path = join(folder, 's');
  server.listen(path);
  await once(server, 'listening');
  const lab: Lab = { server, path, received: [], out: new Set(), inBuffers: 0, ended };
  return lab;
}

it('brings every byte in order, much of it in buffers that come back, and answers', async () => {
  const lab = await newLab();
  const bytes = new Dice(7).bytes(9 * MIB + 17);
  const client = connect(lab.path);
  const answer: Buffer[] = [];
  client.on('data', (piece: Buffer) => answer.push(piece));
  for (let at = 0, n = 0; at < bytes.byteLength; n += 1) {
    const end = Math.min(bytes.byteLength, at + (n % 3 === 0 ? 100 : 300_000));
    client.write(bytes.subarray(at, end));
    if (n % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
    at = end;
  }
  client.end();
  await Promise.all([lab.ended, once(client, 'close')]);
  expect(Buffer.concat(lab.received).equals(bytes)).toBe(true);
  expect(Buffer.concat(answer).toString()).toBe('seen');
  // With `data` alone there would be none: then Node does not work as we know it any more.
  expect(lab.inBuffers).toBeGreaterThan(10);
  expect(lab.out.size).toBe(0);
});

it('is counted by its server as long as it is there', async () => {
  const { server, path, ended } = await newLab();
  const client = connect(path);
  await once(client, 'connect');
  client.write('x');
  const count = (): Promise<number> =>
    new Promise((resolve, reject) => server.getConnections((error, n) => (error ? reject(error) : resolve(n))));
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(await count()).toBe(1);
  const closed = once(server.close(), 'close');
  client.end();
  await ended;
  await closed;
  expect(await count()).toBe(0);
});

it('takes what comes as it comes where a socket has no handle that we know', async () => {
  const accepted = new PassThrough().pause();
  const pieces: Buffer[] = [];
  const socket = openIntake(accepted as unknown as Socket, {
    takeBuffer: () => Buffer.alloc(READ_BYTES),
    giveBack: () => {},
    onPiece: (piece, buffer) => {
      expect(buffer).toBeUndefined();
      pieces.push(piece);
    },
  });
  expect(socket).toBe(accepted);
  accepted.write('some ');
  accepted.end('bytes');
  await once(accepted, 'end');
  expect(Buffer.concat(pieces).toString()).toBe('some bytes');
});
