/**
 * What the program says: results on stdout (text, or one JSON record a line), talk on stderr.
 *
 * Names and messages may come from a hostile disk; control characters in what is shown to people are made visible, so
 * that no file name can drive a terminal.
 */
import { styleText } from 'node:util';
import { type BlockferryError, isBlockferryError } from '../index.ts';
import type { Stdout } from './stdout.ts';

/** The global options that concern output. */
export interface OutputOptions {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  /** Whether colour is wanted at all; it appears on terminals only. */
  readonly color: boolean;
}

/** One JSON record; `type` says what it is. */
export type JsonRecord = { readonly type: string } & Readonly<Record<string, unknown>>;

export class Output {
  readonly stdout: Stdout;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  readonly color: boolean;
  #stdoutIsRaw = false;

  constructor(stdout: Stdout, options: OutputOptions) {
    this.stdout = stdout;
    this.json = options.json;
    this.quiet = options.quiet;
    this.verbose = options.verbose;
    this.color = options.color && process.stderr.isTTY && process.env['TERM'] !== 'dumb';
  }

  /** From now on stdout carries the bytes of a disk, and no record or error goes there. */
  claimStdout(): void {
    this.#stdoutIsRaw = true;
  }

  /** A result: the record with --json, the lines of `text` otherwise. */
  async result(record: JsonRecord, text: () => string | readonly string[]): Promise<void> {
    if (this.#stdoutIsRaw) return;
    if (this.json) return await this.stdout.text(`${toJson(record)}\n`);
    const lines = text();
    for (const line of typeof lines === 'string' ? [lines] : lines) await this.stdout.text(`${visible(line)}\n`);
  }

  /** Something worth knowing; not with --quiet. */
  note(message: string): void {
    if (!this.quiet) this.#say('note', 'yellow', message);
  }

  /** Detail for --verbose. */
  detail(message: string): void {
    if (this.verbose) this.#say('detail', 'dim', message);
  }

  /** An error on stderr, and as a record with --json. */
  async error(error: unknown): Promise<void> {
    const { code, message, hint, facts } = describe(error);
    this.#say('error', 'red', message);
    if (hint !== undefined) this.#say('hint', 'cyan', hint);
    if (this.verbose && error instanceof Error) process.stderr.write(`${stackOf(error)}\n`);
    if (!this.json || this.#stdoutIsRaw) return;
    const own = { type: 'error', code, message, ...(hint === undefined ? {} : { hint }) };
    // First by the order of the fields, last by their values: no fact replaces one of them.
    await this.stdout.text(`${toJson({ ...own, ...facts, ...own })}\n`);
  }

  #say(label: string, style: 'red' | 'cyan' | 'yellow' | 'dim', message: string): void {
    const shown = this.color ? styleText(style, `${label}:`, { validateStream: false }) : `${label}:`;
    process.stderr.write(`blockferry: ${shown} ${visible(message)}\n`);
  }
}

interface Described {
  readonly code: string;
  readonly message: string;
  readonly hint: string | undefined;
  readonly facts: Readonly<Record<string, unknown>>;
}

function describe(error: unknown): Described {
  if (isBlockferryError(error)) {
    return { code: error.code, message: error.message, hint: error.hint, facts: error.facts };
  }
  return {
    code: 'UNEXPECTED' satisfies BlockferryError['code'],
    message: error instanceof Error ? error.message : String(error),
    hint: 'run it again with --verbose to see where it comes from',
    facts: {},
  };
}

/** The stack with those of all causes. */
function stackOf(error: Error): string {
  const own = error.stack ?? String(error);
  return error.cause instanceof Error ? `${own}\ncaused by: ${stackOf(error.cause)}` : own;
}

/** JSON with `type` first; a bigint becomes a number where that is exact, else a string. */
export function toJson(record: JsonRecord): string {
  const { type, ...rest } = record;
  return JSON.stringify({ type, ...rest }, (_key, value: unknown) => {
    if (typeof value !== 'bigint') return value;
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value.toString();
  });
}

// Control characters, C1 controls, and the marks that reverse the direction of text.
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters to be found
const CONTROL = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/** Text in which control characters stand as `\xNN`; a tab stays. */
export function visible(text: string): string {
  return text.replace(CONTROL, (character) => {
    const code = character.charCodeAt(0);
    return code > 0xff ? `\\u${code.toString(16)}` : `\\x${code.toString(16).padStart(2, '0')}`;
  });
}
