/** A broken rule of the log format: as a value while it may still be no fault (the scan of a torn log), then as an error. */
import { BlockferryError, type ErrorCode, type Fact } from '../errors.ts';

/** What is wrong, and where in the file. */
export interface LogFault {
  readonly code: Extract<ErrorCode, `HRL_${string}`>;
  /** Absolute offset in the file. */
  readonly offset: number;
  /** What must hold. */
  readonly rule: string;
  /** The numbers that break it. */
  readonly facts: Readonly<Record<string, Fact>>;
}

/** The fault as the error that reading throws. */
export function logError(source: string, { code, offset, rule, facts }: LogFault, hint?: string): BlockferryError {
  const numbers = Object.entries(facts).map(([name, value]) => `${name} ${value}`);
  const text = `${source}: offset ${offset}: broken rule: ${rule}${numbers.length === 0 ? '' : ` (${numbers.join(', ')})`}`;
  return new BlockferryError(code, text, {
    facts: { source, offset, rule, ...facts },
    ...(hint === undefined ? {} : { hint }),
  });
}
