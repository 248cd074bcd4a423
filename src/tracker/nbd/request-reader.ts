/**
 * RequestReader: the client's stream of the transmission phase, cut into requests.
 *
 * `push` takes a piece of any size, `next` gives one request after the other, a WRITE when its data is there. Data that
 * lies whole in one piece stays there; data that comes in several is collected once, in a buffer of its length. Data of a
 * WRITE that was refused is passed over. Nothing is counted or looped over byte by byte.
 *
 * Memory is held in the connection's name: for a collected payload its length, for payloads inside a piece the buffer that
 * it lies in, until all of it was read and the last of them has ended.
 */
import { NBD_REQUEST_BYTES_MAX } from '../../limits.ts';
import type { ConnectionMemory } from './memory.ts';
import { REQUEST_BYTES, WRITE } from './protocol.ts';
import { type Lease, type Refusal, Request } from './request.ts';
import { violation } from './violation.ts';

const NOTHING: Buffer = Buffer.alloc(0);

export class RequestReader {
  readonly #judge: (request: Request) => Refusal | undefined;
  readonly #memory: ConnectionMemory;
  #piece: Buffer = NOTHING;
  #at = 0;
  /** The memory of the piece: until it was read, and longer for payloads that stay in it. */
  #pieceLease: Lease | undefined;
  /** A header whose end is still to come. */
  readonly #header: Buffer = Buffer.allocUnsafeSlow(REQUEST_BYTES);
  #headerBytes = 0;
  /** A WRITE whose data is still to come, and how much is there. */
  #collecting: Request | undefined;
  #collectedBytes = 0;
  /** What is left of the data of a refused WRITE. */
  #skipBytes = 0;

  /** `judge` is asked once for each request, when its header is there. */
  constructor(judge: (request: Request) => Refusal | undefined, memory: ConnectionMemory) {
    this.#judge = judge;
    this.#memory = memory;
  }

  /** Whether a request has begun whose end is still to come. */
  get isAmidRequest(): boolean {
    return this.#collecting !== undefined || this.#headerBytes > 0 || this.#skipBytes > 0;
  }

  /** Whether a WRITE waits for its data. It holds all the memory that it needs, so reading on takes no more. */
  get isCollecting(): boolean {
    return this.#collecting !== undefined;
  }

  /**
   * The piece is the reader's from now on, and the buffer that it lies in, if that can be used again. Only when `next` has given
   * all of the last one.
   */
  push(piece: Buffer, buffer?: Buffer): void {
    this.#piece = piece;
    this.#at = 0;
    this.#pieceLease = { users: 1, lengthBytes: 0, buffer };
  }

  /** The next request; undefined when the piece has no more. @throws NBD_PROTOCOL */
  next(): Request | undefined {
    if (this.#collecting !== undefined) return this.#collect(this.#collecting);
    this.#skip();
    const request = this.#takeHeader();
    if (request === undefined) {
      this.#drop();
      return undefined;
    }
    const { type, lengthBytes } = request;
    if (type === WRITE && lengthBytes > NBD_REQUEST_BYTES_MAX) {
      throw violation(`a write has ${lengthBytes} bytes, above the limit of ${NBD_REQUEST_BYTES_MAX}`);
    }
    request.refusal = this.#judge(request);
    if (type !== WRITE) return request;
    if (request.refusal !== undefined) {
      this.#skipBytes = lengthBytes;
      return request;
    }
    return this.#takePayload(request);
  }

  /** Gives up what was not read, and the data that was collected: its end will not come. */
  abandon(): void {
    const lease = this.#collecting?.lease;
    this.#collecting = undefined;
    if (lease !== undefined) this.#memory.end(lease, true);
    this.#drop();
  }

  #skip(): void {
    const bytes = Math.min(this.#skipBytes, this.#piece.byteLength - this.#at);
    this.#skipBytes -= bytes;
    this.#at += bytes;
  }

  #takeHeader(): Request | undefined {
    const available = this.#piece.byteLength - this.#at;
    if (this.#headerBytes === 0 && available >= REQUEST_BYTES) {
      this.#at += REQUEST_BYTES;
      return new Request(this.#piece, this.#at - REQUEST_BYTES);
    }
    const bytes = Math.min(REQUEST_BYTES - this.#headerBytes, available);
    this.#piece.copy(this.#header, this.#headerBytes, this.#at, this.#at + bytes);
    this.#headerBytes += bytes;
    this.#at += bytes;
    if (this.#headerBytes < REQUEST_BYTES) return undefined;
    this.#headerBytes = 0;
    return new Request(this.#header, 0);
  }

  #takePayload(request: Request): Request | undefined {
    const { lengthBytes } = request;
    if (this.#piece.byteLength - this.#at >= lengthBytes) {
      request.payload = this.#piece.subarray(this.#at, this.#at + lengthBytes);
      request.lease = this.#sharePiece(this.#pieceLease!);
      this.#at += lengthBytes;
      return request;
    }
    const buffer = this.#memory.take(lengthBytes);
    request.payload = buffer;
    request.lease = { users: 1, lengthBytes, buffer };
    this.#collecting = request;
    this.#collectedBytes = 0;
    return this.#collect(request);
  }

  #sharePiece(lease: Lease): Lease {
    if (lease.lengthBytes === 0) {
      lease.lengthBytes = (lease.buffer ?? this.#piece).byteLength;
      this.#memory.hold(lease.lengthBytes);
    }
    lease.users += 1;
    return lease;
  }

  /** The piece was read. */
  #drop(): void {
    this.#piece = NOTHING;
    this.#at = 0;
    const lease = this.#pieceLease;
    this.#pieceLease = undefined;
    if (lease !== undefined) this.#memory.end(lease, true);
  }

  #collect(request: Request): Request | undefined {
    const bytes = Math.min(request.lengthBytes - this.#collectedBytes, this.#piece.byteLength - this.#at);
    this.#piece.copy(request.payload!, this.#collectedBytes, this.#at, this.#at + bytes);
    this.#collectedBytes += bytes;
    this.#at += bytes;
    if (this.#collectedBytes < request.lengthBytes) {
      this.#drop();
      return undefined;
    }
    this.#collecting = undefined;
    return request;
  }
}
