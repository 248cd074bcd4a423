/** Abort signals that many calls listen to at once. */
import { setMaxListeners } from 'node:events';

/**
 * One signal ends a whole session, so every request under way listens to it. Node takes more than ten listeners for a
 * leak and says so on stderr; here they are meant, and each is removed when its call settles.
 */
export function shared(signal: AbortSignal): AbortSignal {
  setMaxListeners(0, signal);
  return signal;
}
