/** The error that ends a connection: its client does what the protocol forbids. */
import { BlockferryError } from '../../errors.ts';

/** `problem` says what the client did. */
export function violation(problem: string): BlockferryError {
  return new BlockferryError('NBD_PROTOCOL', problem, { facts: { source: 'NBD client', rule: problem } });
}
