/**
 * AnswerQueue: what goes to one client, gathered until the event loop has handled everything that ended in this round,
 * then written at once. Sixteen writes that end together are one system call and one small buffer.
 *
 * Answers are held in the connection's memory until the socket has passed them on; a client that does not read them
 * reaches the bound.
 */
import type { Socket } from 'node:net';
import type { ConnectionMemory } from './memory.ts';
import { SIMPLE_REPLY_BYTES } from './protocol.ts';
import { type Cookie, writeSimpleReply } from './replies.ts';

/** Simple replies are written into pieces of this size, one behind the other. */
const PAGE_BYTES: number = 256 * SIMPLE_REPLY_BYTES;

export class AnswerQueue {
  readonly #socket: Socket;
  readonly #memory: ConnectionMemory;
  #page: Buffer = Buffer.allocUnsafeSlow(PAGE_BYTES);
  /** Where the simple replies begin that are not in `#parts` yet, and where they end. */
  #pageStart = 0;
  #pageEnd = 0;
  #parts: Buffer[] = [];
  /** Parts that were taken from the memory. */
  #taken: Buffer[] = [];
  /** What the other parts hold. */
  #heldBytes = 0;
  #isScheduled = false;
  #unwritten = 0;

  constructor(socket: Socket, memory: ConnectionMemory) {
    this.#socket = socket;
    this.#memory = memory;
  }

  /** Whether the client has answers to read. */
  get isAwaited(): boolean {
    return this.#unwritten > 0;
  }

  simple(cookie: Cookie, error: number): void {
    if (this.#pageEnd === PAGE_BYTES) this.#turnPage();
    writeSimpleReply(this.#page, this.#pageEnd, cookie, error);
    this.#pageEnd += SIMPLE_REPLY_BYTES;
    this.#hold(SIMPLE_REPLY_BYTES);
  }

  /** Any bytes; they are the queue's from now on. */
  add(bytes: Buffer): void {
    this.#closePart();
    this.#parts.push(bytes);
    this.#hold(bytes.byteLength);
  }

  /** A buffer that was taken from the memory; it goes back there. */
  addTaken(buffer: Buffer): void {
    this.#closePart();
    this.#parts.push(buffer);
    this.#taken.push(buffer);
    this.#schedule();
  }

  /** Writes what was gathered. */
  flush(): void {
    this.#closePart();
    const parts = this.#parts;
    if (parts.length === 0) return;
    const [taken, heldBytes] = [this.#taken, this.#heldBytes];
    this.#parts = [];
    this.#taken = [];
    this.#heldBytes = 0;
    this.#unwritten += 1;
    const written = (): void => {
      this.#unwritten -= 1;
      for (const buffer of taken) this.#memory.giveBack(buffer);
      this.#memory.release(heldBytes);
    };
    if (this.#socket.destroyed) {
      written();
      return;
    }
    const last = parts.pop()!;
    this.#socket.cork();
    for (const part of parts) this.#socket.write(part);
    this.#socket.write(last, written);
    this.#socket.uncork();
  }

  #hold(lengthBytes: number): void {
    this.#heldBytes += lengthBytes;
    this.#memory.hold(lengthBytes);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.flush();
    });
  }

  #closePart(): void {
    if (this.#pageEnd > this.#pageStart) this.#parts.push(this.#page.subarray(this.#pageStart, this.#pageEnd));
    this.#pageStart = this.#pageEnd;
  }

  #turnPage(): void {
    this.#closePart();
    this.#page = Buffer.allocUnsafeSlow(PAGE_BYTES);
    this.#pageStart = 0;
    this.#pageEnd = 0;
  }
}
