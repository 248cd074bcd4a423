/**
 * Failpoints armed from text, for crash tests of the real program: `NAME[:N]=ACTION`, separated by commas. At the N-th
 * hit (default the first) ACTION happens: `kill` ends the process with SIGKILL as a power cut would, `error` throws
 * FAILPOINT. Without text no failpoint does anything.
 */
import { BlockferryError } from '../errors.ts';
import { FAILPOINT_NAMES, type Failpoint, type FailpointName } from '../ports.ts';

interface Armed {
  hitsLeft: number;
  readonly action: 'kill' | 'error';
}

/** @throws USAGE if the text names an unknown failpoint or action. */
export function parseFailpoints(text: string | undefined): Failpoint {
  const armed = new Map<FailpointName, Armed>();
  for (const part of (text ?? '').split(',').filter((p) => p !== '')) {
    const match = /^([a-z.-]+)(?::(\d+))?=(kill|error)$/.exec(part.trim());
    const name = FAILPOINT_NAMES.find((n) => n === match?.[1]);
    if (!match || !name) {
      throw new BlockferryError('USAGE', `failpoint "${part}" is not NAME[:N]=kill|error with a known name`, {
        hint: `known names: ${FAILPOINT_NAMES.join(', ')}`,
      });
    }
    armed.set(name, { hitsLeft: Number(match[2] ?? 1), action: match[3] as Armed['action'] });
  }
  return (name) => {
    const point = armed.get(name);
    if (!point) return;
    point.hitsLeft -= 1;
    if (point.hitsLeft !== 0) return;
    if (point.action === 'kill') process.kill(process.pid, 'SIGKILL');
    throw new BlockferryError('FAILPOINT', `failpoint ${name} was armed`, { facts: { name } });
  };
}
