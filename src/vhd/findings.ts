/**
 * Findings: where a parser reports what is wrong. Opening and checking run the same checks and differ only here:
 * opening throws at the first fault and keeps the rest as notes, checking collects everything and goes on.
 */
import { BlockferryError, type ErrorCode, type Fact } from '../errors.ts';
import type { DiskFault } from './virtual-disk.ts';

/** Receives what the checks of one file find. */
export interface Findings {
  /** Path of the file, for messages. */
  readonly source: string;
  /** A rule is broken and reading on would be unsafe. Opening throws here, checking goes on. */
  fault(code: ErrorCode, offset: number, rule: string, facts?: Readonly<Record<string, Fact>>): void;
  /** A rule is broken that reading does not rely on (a spare copy is damaged): a note on opening, a fault on checking. */
  blemish(code: ErrorCode, offset: number, rule: string, facts?: Readonly<Record<string, Fact>>): void;
  /** Unusual, allowed. */
  note(text: string): void;
}

/** A fault as the error that opening throws. `rule` says what must hold; the numbers that break it are `facts`. */
export function faultError(
  source: string,
  code: ErrorCode,
  offset: number,
  rule: string,
  facts: Readonly<Record<string, Fact>> = {},
): BlockferryError {
  const text = `${source}: offset ${offset}: broken rule: ${rule}${numbers(facts)}`;
  return new BlockferryError(code, text, { facts: { source, offset, rule, ...facts } });
}

/** For opening: throws at the first fault. */
export class StrictFindings implements Findings {
  readonly source: string;
  readonly notes: string[] = [];

  constructor(source: string) {
    this.source = source;
  }

  fault(code: ErrorCode, offset: number, rule: string, facts: Readonly<Record<string, Fact>> = {}): never {
    throw faultError(this.source, code, offset, rule, facts);
  }

  blemish(_code: ErrorCode, offset: number, rule: string, facts: Readonly<Record<string, Fact>> = {}): void {
    this.notes.push(`offset ${offset}: broken rule: ${rule}${numbers(facts)}`);
  }

  note(text: string): void {
    this.notes.push(text);
  }
}

/** For checking: collects, up to a bound, since a hostile table can break a rule a million times. */
export class CollectedFindings implements Findings {
  readonly source: string;
  readonly faults: DiskFault[] = [];
  readonly notes: string[] = [];
  readonly #faultsMax: number;

  constructor(source: string, faultsMax: number) {
    this.source = source;
    this.#faultsMax = faultsMax;
  }

  fault(code: ErrorCode, offset: number, rule: string, facts: Readonly<Record<string, Fact>> = {}): void {
    if (this.faults.length > this.#faultsMax) return;
    const full = this.faults.length === this.#faultsMax;
    const text = full ? `more than ${this.#faultsMax} faults; the rest is left out` : `${rule}${numbers(facts)}`;
    this.faults.push({ file: this.source, offset, rule: text, code });
  }

  blemish(code: ErrorCode, offset: number, rule: string, facts: Readonly<Record<string, Fact>> = {}): void {
    this.fault(code, offset, rule, facts);
  }

  note(text: string): void {
    this.notes.push(text);
  }

  /** Takes a typed error as a fault; anything else is thrown on. */
  caught(error: unknown): void {
    if (!(error instanceof BlockferryError) || error.area !== 'source') throw error;
    const { offset, rule } = error.facts;
    this.fault(error.code, typeof offset === 'number' ? offset : 0, typeof rule === 'string' ? rule : error.message);
  }
}

function numbers(facts: Readonly<Record<string, Fact>>): string {
  const parts = Object.entries(facts).map(([name, value]) => `${name} ${value}`);
  return parts.length === 0 ? '' : ` (${parts.join(', ')})`;
}
