/**
 * Progress: one line on a terminal, redrawn a few times a second with bytes, rate and time left. Elsewhere nothing but
 * a line when a long phase ends, and one whenever SIGUSR1 asks. All on stderr.
 */
import { type Clock, formatSize } from '../index.ts';
import { formatDuration } from './format.ts';
import { visible } from './output.ts';

/** Where a piece of work is. */
export interface ProgressState {
  /** What is being done to what, `restore d0`. */
  readonly title: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Bytes over the wire, where there is one. */
  readonly transferredBytes?: number;
}

/** Where it is drawn: process.stderr. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

const REDRAW_MS = 200;
/** A phase that was over sooner is not worth a line. */
const LONG_PHASE_MS = 2000;
/** Below this a rate is noise. */
const RATE_MS_MIN = 300;

export class Progress {
  readonly #clock: Clock;
  readonly #stream: ProgressStream;
  readonly #terminal: boolean;
  readonly #quiet: boolean;
  #state: ProgressState | undefined;
  #startMs = 0;
  #startBytes = 0;
  #drawnMs = Number.NEGATIVE_INFINITY;
  #drawn = false;

  constructor(clock: Clock, options: { readonly quiet: boolean }, stream: ProgressStream = process.stderr) {
    this.#clock = clock;
    this.#stream = stream;
    this.#quiet = options.quiet;
    this.#terminal = stream.isTTY === true && process.env['TERM'] !== 'dumb';
  }

  /** Takes the newest state; a new title begins a new phase. */
  update(state: ProgressState): void {
    const nowMs = this.#clock.monotonicMs();
    if (state.title !== this.#state?.title) {
      this.end();
      this.#startMs = nowMs;
      // A resumed run begins in the middle; what was done before says nothing about the rate.
      this.#startBytes = state.doneBytes;
    }
    this.#state = state;
    if (!this.#terminal || this.#quiet || nowMs - this.#drawnMs < REDRAW_MS) return;
    this.#drawnMs = nowMs;
    this.#drawn = true;
    this.#stream.write(`\r${this.#line(state, nowMs)}\x1b[K`);
  }

  /** One line now, as SIGUSR1 asks for. */
  print(): void {
    this.clear();
    const text = this.#state ? this.#line(this.#state, this.#clock.monotonicMs()) : 'nothing is being moved';
    this.#stream.write(`blockferry: ${text}\n`);
  }

  /** Removes the line from the terminal before something else is said. */
  clear(): void {
    if (this.#drawn) this.#stream.write('\r\x1b[K');
    this.#drawn = false;
    this.#drawnMs = Number.NEGATIVE_INFINITY;
  }

  /** The phase is over. */
  end(): void {
    const state = this.#state;
    this.clear();
    this.#state = undefined;
    if (!state || this.#quiet) return;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#startMs < LONG_PHASE_MS) return;
    this.#stream.write(`blockferry: ${this.#line(state, nowMs)}\n`);
  }

  #line(state: ProgressState, nowMs: number): string {
    const { title, doneBytes, totalBytes, transferredBytes } = state;
    const elapsedMs = nowMs - this.#startMs;
    const percent = totalBytes === 0 ? 100 : Math.floor((doneBytes / totalBytes) * 100);
    const parts = [`${visible(title)}: ${formatSize(doneBytes)} of ${formatSize(totalBytes)} (${percent} %)`];
    const moved = doneBytes - this.#startBytes;
    if (elapsedMs >= RATE_MS_MIN && moved > 0) {
      parts.push(`${formatSize(Math.round((moved / elapsedMs) * 1000))}/s`);
    }
    if (transferredBytes !== undefined) parts.push(`${formatSize(transferredBytes)} transferred`);
    if (doneBytes >= totalBytes) parts.push(`in ${formatDuration(elapsedMs)}`);
    else if (elapsedMs >= RATE_MS_MIN && moved > 0) {
      parts.push(`${formatDuration(((totalBytes - doneBytes) / moved) * elapsedMs)} left`);
    }
    return parts.join(', ');
  }
}
