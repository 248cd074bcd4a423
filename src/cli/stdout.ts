/**
 * Stdout as a place for data: lines in batches, bytes at the pace of the reader.
 *
 * Writes go through the thread pool, not through process.stdout: that one blocks the whole process on a slow pipe, and
 * Ctrl-C with it. A reader that goes away (EPIPE) is no error: `closed` turns true, what is written later vanishes, and
 * whoever produces data looks at `closed` and stops.
 */
import { write as writeFd } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { abortedError, BlockferryError } from '../index.ts';

const writeAsync = promisify(writeFd);

/** Text is gathered up to here before it is written. */
const BATCH_CHARS = 64 * 1024;
/** Pause before the next try on a pipe that somebody made non-blocking and that is full. */
const FULL_PIPE_WAIT_MS = 5;
/**
 * How long a write may still take after an abort. Not none: who starts a server and stops it as soon as it has said that
 * it listens would else see a failure, as that line has arrived before its write has been reported as done.
 */
const READER_GRACE_MS = 200;

export class Stdout {
  readonly #descriptor: number;
  readonly #signal: AbortSignal;
  #text = '';
  #closed = false;
  #underWay = 0;

  constructor(descriptor: number, signal: AbortSignal) {
    this.#descriptor = descriptor;
    this.#signal = signal;
  }

  /** Whether the reader went away. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Whether a write waits for its reader: the process then cannot leave by process.exit, which waits for it. */
  get stuck(): boolean {
    return this.#underWay > 0;
  }

  /** Adds text; waits only when a batch is full. */
  async text(text: string): Promise<void> {
    this.#text += text;
    if (this.#text.length >= BATCH_CHARS) await this.flush();
  }

  /** Writes the text gathered so far. */
  async flush(): Promise<void> {
    const text = this.#text;
    this.#text = '';
    if (text !== '') await this.bytes(Buffer.from(text, 'utf8'));
  }

  /** Writes bytes; resolves when they may change. @throws ABORTED, OUTPUT_FAILED */
  async bytes(bytes: Uint8Array): Promise<void> {
    if (this.#closed) return;
    this.#underWay += 1;
    const written = this.#writeAll(bytes).finally(() => {
      this.#underWay -= 1;
    });
    // An abort does not wait long for a reader that has stopped reading; what it would still get makes no sense.
    await untilAborted(written, this.#signal, () => {
      this.#closed = true;
    });
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.byteLength; ) {
      try {
        done += (await writeAsync(this.#descriptor, bytes, done, bytes.byteLength - done, null)).bytesWritten;
      } catch (cause) {
        const code = (cause as NodeJS.ErrnoException).code;
        if (code === 'EAGAIN') {
          await delay(FULL_PIPE_WAIT_MS);
          continue;
        }
        this.#closed = true;
        if (code === 'EPIPE' || code === 'EOF') return;
        throw new BlockferryError('OUTPUT_FAILED', `stdout cannot be written: ${(cause as Error).message}`, { cause });
      }
    }
  }
}

/** `work`, unless the signal fires and it does not end soon after; a signal that has fired before does not count. */
async function untilAborted(work: Promise<void>, signal: AbortSignal, giveUp: () => void): Promise<void> {
  if (signal.aborted) return await work;
  let timer: NodeJS.Timeout | undefined;
  let onAbort = (): void => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => {
      timer = setTimeout(() => {
        giveUp();
        reject(abortedError(signal));
      }, READER_GRACE_MS);
    };
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
    clearTimeout(timer);
    work.catch(() => {});
  }
}
