/**
 * Transmission: serves the requests of one connection. They run side by side, and each is answered when it ends.
 *
 * A device that fails costs the client EIO or ENOSPC, the owner an event, and nobody anything else. Memory that a
 * request needs is held before it starts.
 */
import { isBlockferryError } from '../../errors.ts';
import { NBD_REQUEST_HELD_BYTES, NBD_STATUS_EXTENTS_MAX } from '../../limits.ts';
import type { AnswerQueue } from './answer-queue.ts';
import { ALLOCATION_ZERO, type StatusExtent } from './block-device.ts';
import type { Agreement } from './handshake.ts';
import type { ConnectionMemory } from './memory.ts';
import * as nbd from './protocol.ts';
import * as replies from './replies.ts';
import {
  DISK_FAILED,
  DISK_FULL,
  type Refusal,
  type Request,
  refusalOf,
  SHUTTING_DOWN,
  type Terms,
  WRITES_STOPPED,
} from './request.ts';

/** Reads shorter than this are not worth the question where the zeros are. */
const SPARSE_READ_BYTES_MIN = 65_536;
/** Pieces of a read that are told apart; what lies behind them is read as data. */
const SPARSE_PIECES_MAX = 16;
/** What one extent of a status takes while the answer is made. */
const EXTENT_HELD_BYTES = 64;

/** Errors of a disk that say that it, or what it lies on, is full. */
const FULL_CODES: readonly unknown[] = ['ENOSPC', 'EDQUOT', 'EFBIG', 'STORE_FULL'];
/** Causes of an error that are looked at. */
const CAUSES_MAX = 8;

const NAMES: Readonly<Record<number, string>> = {
  [nbd.READ]: 'read',
  [nbd.WRITE]: 'write',
  [nbd.FLUSH]: 'flush',
  [nbd.TRIM]: 'trim',
  [nbd.WRITE_ZEROES]: 'write of zeros',
  [nbd.BLOCK_STATUS]: 'status',
};

/** A piece of a read: its data, or that it is zeros. */
interface Piece {
  readonly offset: number;
  lengthBytes: number;
  readonly isZero: boolean;
}

export interface TransmissionSetup {
  readonly agreement: Agreement;
  readonly answers: AnswerQueue;
  readonly memory: ConnectionMemory;
  /** `what`: the request and its range. */
  readonly onFailure: (what: string, error: unknown) => void;
  /** Called each time the last request under way has been answered. */
  readonly onIdle: () => void;
}

export class Transmission {
  readonly #setup: TransmissionSetup;
  readonly #terms: Terms;
  #running = 0;
  #isShuttingDown = false;

  constructor(setup: TransmissionSetup) {
    const { device, isStructured, isAligned, contexts } = setup.agreement;
    this.#setup = setup;
    this.#terms = {
      sizeBytes: device.sizeBytes,
      alignmentBytes: isAligned ? device.minimumBlockBytes : 1,
      zeroIsFast: device.zeroIsFast,
      isStructured,
      hasContexts: contexts.length > 0,
    };
  }

  get isIdle(): boolean {
    return this.#running === 0;
  }

  /** From now on everything is refused. */
  shutDown(): void {
    this.#isShuttingDown = true;
  }

  /** For the reader of requests: what will not be served needs no data. */
  judge(request: Request): Refusal | undefined {
    if (request.type === nbd.DISCONNECT) return undefined;
    return this.#isShuttingDown ? SHUTTING_DOWN : refusalOf(request, this.#terms);
  }

  /** Starts a request, or refuses it. */
  start(request: Request): void {
    this.#running += 1;
    this.#setup.memory.hold(NBD_REQUEST_HELD_BYTES);
    if (request.refusal !== undefined) this.#refuse(request, request.refusal);
    else if (request.type === nbd.READ) this.#startRead(request);
    else if (request.type === nbd.BLOCK_STATUS) this.#finish(request, this.#status(request));
    else this.#startChange(request);
  }

  #startChange(request: Request): void {
    attempt(() => this.#change(request)).then(
      () => {
        this.#setup.answers.simple(request, 0);
        this.#end(request, true);
      },
      (error) => this.#fail(request, error),
    );
  }

  #change(request: Request): Promise<void> {
    const { device } = this.#setup.agreement;
    const { type, offset, lengthBytes } = request;
    if (type === nbd.FLUSH) return device.flush();
    const fua = request.has(nbd.FLAG_FUA);
    if (type === nbd.WRITE) return device.write(request.payload!, offset, fua);
    return device.zero(offset, lengthBytes, { unmap: !request.has(nbd.FLAG_NO_HOLE), fua });
  }

  #startRead(request: Request): void {
    const { agreement, memory, answers } = this.#setup;
    const { offset, lengthBytes } = request;
    const { isStructured } = agreement;
    if (isStructured && lengthBytes >= SPARSE_READ_BYTES_MIN && !request.has(nbd.FLAG_DF)) {
      this.#finish(request, this.#readSparse(request));
      return;
    }
    const headerBytes = isStructured ? replies.CHUNK_READ_HEADER_BYTES : replies.SIMPLE_READ_HEADER_BYTES;
    const answer = memory.take(headerBytes + lengthBytes);
    attempt(() => agreement.device.read(answer.subarray(headerBytes), offset)).then(
      () => {
        if (isStructured) replies.writeDataHeader(answer, request, offset, true);
        else replies.writeSimpleReply(answer, 0, request, 0);
        answers.addTaken(answer);
        this.#end(request, true);
      },
      (error) => {
        memory.abandon(answer);
        this.#fail(request, error);
      },
    );
  }

  /** A read that leaves out what the device knows to be zeros. */
  async #readSparse(request: Request): Promise<void> {
    const { agreement, memory, answers } = this.#setup;
    const { lengthBytes } = request;
    memory.hold(lengthBytes);
    const pieces = await this.#pieces(request).finally(() => memory.release(lengthBytes));
    const headerBytes = replies.CHUNK_READ_HEADER_BYTES;
    const buffers = pieces.map((piece) => (piece.isZero ? undefined : memory.take(headerBytes + piece.lengthBytes)));
    try {
      for (const [i, buffer] of buffers.entries()) {
        if (buffer !== undefined) await agreement.device.read(buffer.subarray(headerBytes), pieces[i]!.offset);
      }
    } catch (error) {
      for (const buffer of buffers) if (buffer !== undefined) memory.abandon(buffer);
      throw error;
    }
    for (const [i, piece] of pieces.entries()) {
      const isLast = i === pieces.length - 1;
      const buffer = buffers[i];
      if (buffer === undefined) {
        answers.add(replies.holeChunk(request, piece.offset, piece.lengthBytes, isLast));
      } else {
        replies.writeDataHeader(buffer, request, piece.offset, isLast);
        answers.addTaken(buffer);
      }
    }
  }

  /** What a read consists of, in order and without gaps. */
  async #pieces({ offset, lengthBytes }: Request): Promise<readonly Piece[]> {
    const end = offset + lengthBytes;
    const pieces: Piece[] = [];
    let at = offset;
    for await (const extent of this.#setup.agreement.device.allocation(offset, lengthBytes)) {
      const bytes = Math.min(extent.lengthBytes, end - at);
      append(pieces, at, bytes, (extent.flags & ALLOCATION_ZERO) !== 0);
      at += bytes;
      if (at === end || pieces.length === SPARSE_PIECES_MAX) break;
    }
    if (at < end) append(pieces, at, end - at, false);
    return pieces;
  }

  async #status(request: Request): Promise<void> {
    const { agreement, memory, answers } = this.#setup;
    const { contexts } = agreement;
    const extentsMax = request.has(nbd.FLAG_REQ_ONE) ? 1 : NBD_STATUS_EXTENTS_MAX;
    const heldBytes = contexts.length * extentsMax * EXTENT_HELD_BYTES;
    memory.hold(heldBytes);
    try {
      const lists: (readonly StatusExtent[])[] = [];
      for (const { extents } of contexts) {
        const { device } = agreement;
        lists.push(await firstExtents(extents(device, request.offset, request.lengthBytes), request, extentsMax));
      }
      for (const [i, { id }] of contexts.entries()) {
        answers.add(replies.statusChunk(request, id, lists[i]!, i === contexts.length - 1));
      }
    } finally {
      memory.release(heldBytes);
    }
  }

  /** `answering` has put the answer into the queue when it resolves, and none of it when it fails. */
  #finish(request: Request, answering: Promise<void>): void {
    answering.then(
      () => this.#end(request, true),
      (error) => this.#fail(request, error),
    );
  }

  #fail(request: Request, error: unknown): void {
    // Of no interest to anyone but the client: its owner has stopped the disk.
    if (isBlockferryError(error, 'WRITES_STOPPED')) {
      this.#refuse(request, WRITES_STOPPED);
      return;
    }
    const { type, offset, lengthBytes } = request;
    const { agreement, onFailure } = this.#setup;
    onFailure(`${NAMES[type]} of ${lengthBytes} bytes at ${offset} of disk "${agreement.device.name}"`, error);
    this.#refuse(request, isFull(error) ? DISK_FULL : DISK_FAILED);
  }

  #refuse(request: Request, refusal: Refusal): void {
    const { answers, agreement } = this.#setup;
    if (agreement.isStructured) answers.add(replies.errorChunk(request, refusal));
    else answers.simple(request, refusal.error);
    this.#end(request, false);
  }

  /** `isDone`: the device has let go of the request's data. */
  #end(request: Request, isDone: boolean): void {
    const { memory, onIdle } = this.#setup;
    this.#running -= 1;
    if (request.lease !== undefined) memory.end(request.lease, isDone);
    memory.release(NBD_REQUEST_HELD_BYTES);
    if (this.#running === 0) onIdle();
  }
}

/** A promise also where the call itself throws. */
function attempt(call: () => Promise<void>): Promise<void> {
  try {
    return call();
  } catch (error) {
    return Promise.reject(error);
  }
}

/** Lengthens the last piece, if it is of the same kind. */
function append(pieces: Piece[], offset: number, lengthBytes: number, isZero: boolean): void {
  const last = pieces.at(-1);
  if (last?.isZero === isZero) last.lengthBytes += lengthBytes;
  else pieces.push({ offset, lengthBytes, isZero });
}

/** The extents of a range, neighbours that are alike joined, no more than `extentsMax`; at least one. */
async function firstExtents(
  extents: AsyncIterable<StatusExtent>,
  { lengthBytes }: Request,
  extentsMax: number,
): Promise<readonly StatusExtent[]> {
  const list: { lengthBytes: number; readonly flags: number }[] = [];
  let leftBytes = lengthBytes;
  for await (const extent of extents) {
    const bytes = Math.min(extent.lengthBytes, leftBytes);
    const last = list.at(-1);
    if (last?.flags === extent.flags) last.lengthBytes += bytes;
    else if (list.length < extentsMax) list.push({ lengthBytes: bytes, flags: extent.flags });
    else break;
    leftBytes -= bytes;
    if (leftBytes === 0) break;
  }
  return list.length > 0 ? list : [{ lengthBytes, flags: 0 }];
}

/** Whether the error, or what caused it, says that there is no space. */
function isFull(error: unknown): boolean {
  let cause = error;
  for (let depth = 0; depth < CAUSES_MAX && cause instanceof Error; depth += 1) {
    if ('code' in cause && FULL_CODES.includes(cause.code)) return true;
    cause = cause.cause;
  }
  return isBlockferryError(error, 'STORE_FULL');
}
