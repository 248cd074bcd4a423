/**
 * Connection: one client from its first byte to its last.
 *
 *     handshake ─▶ transmission ─▶ ending: the last answers are written, then the socket is closed
 *
 * The socket is read only while there is memory for what it brings, or for the rest of a write that already has its
 * memory; a client that does not read its answers is not read either. A client that breaks the protocol is dropped at once. One that goes away takes nothing with it: what it asked
 * for ends, and `closed` resolves behind that.
 */
import type { Socket } from 'node:net';
import { BlockferryError, isBlockferryError } from '../../errors.ts';
import { NBD_HANDSHAKE_MS_MAX, NBD_LINGER_MS_MAX } from '../../limits.ts';
import type { Clock } from '../../ports.ts';
import { AnswerQueue } from './answer-queue.ts';
import type { BlockDevice } from './block-device.ts';
import type { NbdEvent } from './events.ts';
import { type Agreement, Handshake } from './handshake.ts';
import { openIntake, READ_BYTES } from './intake.ts';
import { ConnectionMemory, type ServerMemory } from './memory.ts';
import { DISCONNECT, HELLO } from './protocol.ts';
import { RequestReader } from './request-reader.ts';
import { Transmission } from './transmission.ts';
import { violation } from './violation.ts';

export interface ConnectionSetup {
  readonly id: number;
  readonly devices: readonly BlockDevice[];
  readonly memory: ServerMemory;
  readonly clock: Clock;
  readonly report: (event: NbdEvent) => void;
}

/** What the client may still do: ask, have its answers, read the last of them, nothing. */
type State = 'open' | 'ending' | 'ended' | 'closed';

export class Connection {
  /** The socket is closed, and no request of its client runs any more. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #setup: ConnectionSetup;
  readonly #memory: ConnectionMemory;
  readonly #answers: AnswerQueue;
  readonly #handshake: Handshake;
  #state: State = 'open';
  #isShuttingDown = false;
  /** Ends what waits for time to pass. */
  #timer = new AbortController();
  /** Both from the end of the handshake on. */
  #transmission: Transmission | undefined;
  #reader: RequestReader | undefined;
  #resolveClosed: () => void = () => {};

  constructor(accepted: Socket, setup: ConnectionSetup) {
    this.#setup = setup;
    this.#memory = new ConnectionMemory(setup.memory, () => this.#pump());
    const socket = openIntake(accepted, {
      takeBuffer: () => setup.memory.take(READ_BYTES),
      giveBack: (buffer) => setup.memory.giveBack(buffer),
      onPiece: (piece, buffer) => this.#take(piece, buffer),
    });
    this.#socket = socket;
    this.#answers = new AnswerQueue(socket, this.#memory);
    this.#handshake = new Handshake(setup.devices);
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    socket.on('drain', () => this.#negotiate());
    socket.on('end', () => this.#finish());
    // That it is over comes as `close`; why is of no use to anyone.
    socket.on('error', () => {});
    socket.on('close', () => this.#onClose());
    socket.write(HELLO);
    this.#after(NBD_HANDSHAKE_MS_MAX, () => {
      this.drop(violation(`no export was agreed on within ${NBD_HANDSHAKE_MS_MAX} ms`));
    });
  }

  get heldBytes(): number {
    return this.#memory.heldBytes;
  }

  /** Whether it is the client's turn: to send the rest of a request, or to read. */
  get isAwaitingClient(): boolean {
    return this.#answers.isAwaited || (this.#reader?.isAmidRequest === true && !this.#socket.isPaused());
  }

  /** Refuses what comes from now on, and ends when everything under way was answered. */
  shutDown(): void {
    this.#isShuttingDown = true;
    this.#transmission?.shutDown();
    this.#endWhenIdle();
  }

  /** Cuts the client off. */
  drop(error: BlockferryError): void {
    if (this.#state === 'closed' || this.#socket.destroyed) return;
    this.#state = 'ended';
    this.#report('CLIENT_DROPPED', `was cut off: ${error.message}`, error);
    this.#socket.destroy();
  }

  #take(piece: Buffer, buffer: Buffer | undefined): void {
    if (this.#state === 'open' && this.#reader !== undefined) {
      this.#reader.push(piece, buffer);
      this.#pump();
      return;
    }
    const kept = buffer === undefined ? piece : Buffer.from(piece);
    if (buffer !== undefined) this.#setup.memory.giveBack(buffer);
    if (this.#state === 'open') {
      this.#handshake.push(kept);
      this.#negotiate();
    }
  }

  /** Answers options one by one: the next when the client has read what was said so far. */
  #negotiate(): void {
    if (this.#state !== 'open' || this.#transmission !== undefined) return;
    try {
      while (!this.#socket.writableNeedDrain) {
        const step = this.#handshake.next();
        if (step === undefined) {
          this.#resume();
          return;
        }
        this.#socket.write(step.answer);
        if (step.next === 'close') {
          this.#finish();
          return;
        }
        if (step.next !== 'go on') {
          this.#begin(step.next);
          return;
        }
      }
      this.#socket.pause();
    } catch (error) {
      this.#dropFor(error);
    }
  }

  #begin(agreement: Agreement): void {
    const { name } = agreement.device;
    this.#timer.abort();
    const transmission = new Transmission({
      agreement,
      answers: this.#answers,
      memory: this.#memory,
      onFailure: (what, error) => this.#report('DEVICE_FAILED', `${what} failed: ${describe(error)}`, error),
      onIdle: () => this.#endWhenIdle(),
    });
    this.#transmission = transmission;
    this.#reader = new RequestReader((request) => transmission.judge(request), this.#memory);
    this.#reader.push(this.#handshake.rest());
    this.#report('CLIENT_OPENED', `works with disk "${name}"`);
    void this.closed.then(() => this.#report('CLIENT_CLOSED', `has left disk "${name}"`));
    this.#pump();
  }

  /** Starts the requests that are there, as far as memory goes. */
  #pump(): void {
    const [reader, transmission] = [this.#reader!, this.#transmission!];
    try {
      while (this.#state === 'open') {
        if (this.#memory.isFull && !reader.isCollecting) {
          this.#socket.pause();
          this.#memory.wait();
          return;
        }
        const request = reader.next();
        if (request === undefined) {
          this.#resume();
          return;
        }
        if (request.type === DISCONNECT) this.#finish();
        else transmission.start(request);
      }
    } catch (error) {
      this.#dropFor(error);
    }
  }

  #resume(): void {
    if (this.#socket.isPaused()) this.#socket.resume();
  }

  /** The client has nothing more to say. What it asked for is still answered. */
  #finish(): void {
    if (this.#state !== 'open') return;
    this.#state = 'ending';
    // Read on, and throw away, so that the end of the socket is noticed.
    this.#resume();
    this.#endWhenIdle();
  }

  #endWhenIdle(): void {
    if (this.#transmission?.isIdle === false) return;
    if (this.#state === 'closed') {
      this.#answers.flush();
      this.#resolveClosed();
    } else if (this.#state === 'ending' || (this.#state === 'open' && this.#isShuttingDown)) {
      this.#end();
    }
  }

  #end(): void {
    this.#state = 'ended';
    this.#answers.flush();
    this.#socket.destroySoon();
    this.#timer.abort();
    this.#after(NBD_LINGER_MS_MAX, () => this.#socket.destroy());
  }

  #onClose(): void {
    this.#state = 'closed';
    this.#timer.abort();
    this.#memory.forget();
    this.#reader?.abandon();
    this.#answers.flush();
    this.#endWhenIdle();
  }

  #after(ms: number, run: () => void): void {
    this.#timer = new AbortController();
    this.#setup.clock.sleep(ms, this.#timer.signal).then(run, () => {});
  }

  #report(code: NbdEvent['code'], what: string, error?: unknown): void {
    this.#setup.report({ code, message: `NBD client ${this.#setup.id} ${what}`, error });
  }

  #dropFor(error: unknown): void {
    this.drop(
      isBlockferryError(error)
        ? error
        : new BlockferryError('UNEXPECTED', `NBD connection: ${error}`, { cause: error }),
    );
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
