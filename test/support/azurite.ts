/** The blob emulator for tests; the demo starts it the same way. */
import type { startAzurite } from '../../scripts/azurite.mjs';

export { freePort, startAzurite } from '../../scripts/azurite.mjs';

export type Azurite = Awaited<ReturnType<typeof startAzurite>>;
