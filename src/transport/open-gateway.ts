/** From a URL to a store behind a gateway: `gateway+https://HOST:PORT/STORE/PREFIX`, plain HTTP on the loopback only. */
import { BlockferryError } from '../errors.ts';
import { readSecretFile } from '../secret-file.ts';
import { Deadlines } from './deadlines.ts';
import { GatewayStore } from './gateway-store.ts';
import type { OpenStoreOptions } from './open-store.ts';
import type { Store } from './store.ts';
import { PREFIX_SEGMENT, usage } from './store-url.ts';

/** Whether a host is this machine itself. */
const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])$/;
/** Longer than that of a request to a store, which a gateway makes before it answers. */
const GATEWAY_TIMEOUT_MS = 120_000;

/** @throws USAGE, KEY_MISSING */
export async function openGateway(
  url: URL,
  { ports, environment, attemptTimeoutMs }: OpenStoreOptions,
): Promise<Store> {
  const form =
    'write gateway+https://HOST:PORT/STORE/PREFIX, where STORE is a name in the configuration of the gateway';
  // A URL of a scheme that is not the web's is parsed less strictly; as one of the web it is.
  const { origin, hostname, protocol, pathname, search, hash, username } = new URL(url.href.slice('gateway+'.length));
  if (protocol !== 'https:' && protocol !== 'http:') throw usage(`a gateway is not reached by ${protocol}`, form);
  if (search !== '' || hash !== '' || username !== '') throw usage('the URL of a gateway ends with its prefix', form);
  const place = pathname.split('/').filter((segment) => segment !== '');
  if (place.length < 2 || !place.every((segment) => PREFIX_SEGMENT.test(segment))) {
    throw usage(`${origin}${pathname} names no store and prefix`, form);
  }
  if (protocol === 'http:' && !LOOPBACK.test(hostname)) {
    throw usage(`${origin} would be reached without encryption, and with it the token`, 'write gateway+https://');
  }
  const { tokenFile, caFile } = environment?.gateway ?? {};
  if (tokenFile === undefined) {
    throw new BlockferryError('KEY_MISSING', `gateway ${origin} wants a token`, {
      hint: 'set BLOCKFERRY_GATEWAY_TOKEN_FILE, or gateway-token-file in the configuration of the agent',
    });
  }
  const read = async (path: string): Promise<string> => (await readSecretFile(path, ports.files)).toString('utf8');
  const token = (await read(tokenFile)).trim();
  const ca = caFile === undefined ? undefined : await read(caFile);
  const limits = { deadlines: new Deadlines(ports.clock), timeoutMs: attemptTimeoutMs ?? GATEWAY_TIMEOUT_MS };
  return new GatewayStore({
    ...{ origin, place: place.join('/'), token, limits, random: ports.random },
    ...(ca === undefined ? {} : { ca }),
  });
}
