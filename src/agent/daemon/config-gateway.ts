/** The `gateway` section of a configuration: what this agent is for others (docs/gateway.md). */
import { resolve } from 'node:path';
import { parseSize } from '../../bytes.ts';
import type { GatewayConfig } from '../../gateway/index.ts';
import { GATEWAY_CLIENTS_MAX, GATEWAY_STORES_MAX } from '../../limits.ts';
import type { ConfigMap, ConfigValue } from './config-reader.ts';
import { isLoopback, parseAddress, parseName, parseStoreUrl } from './config-values.ts';

const SECRET = 'secrets do not stand in this file; name a file that holds it';
const SECRETS: Readonly<Record<string, string>> = { token: `${SECRET}: token-file`, password: `${SECRET}: token-file` };
const PLACES_MAX = 256;
const LIMIT_BYTES_MIN = parseSize('64MiB');
const STORE_NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;
const PLACE = /^[a-z0-9][a-z0-9-]{0,62}(?:\/[A-Za-z0-9._~-]+)*$/;

export function readGateway(value: ConfigValue | undefined, directory: string): GatewayConfig | undefined {
  if (!value) return undefined;
  const map = value.map(['listen', 'certificate', 'key', 'cache', 'stores', 'clients'], SECRETS);
  const listen = map.need('listen')?.parse(parseAddress) ?? { host: '', port: 0 };
  const file = (key: string): string | undefined => map.get(key)?.parse((text) => resolve(directory, text));
  const [certificate, key] = [file('certificate'), file('key')];
  if ((certificate === undefined) !== (key === undefined)) value.fail('needs "certificate" and "key" together');
  const isOpen = certificate === undefined && listen.host !== '' && !isLoopback(listen.host);
  if (isOpen) value.fail('needs "certificate" and "key": without them it serves the loopback only');
  const stores = readStores(map.need('stores'));
  return {
    listen,
    ...(certificate === undefined || key === undefined ? {} : { tls: { certificate, key } }),
    cache: readCache(map.need('cache'), directory),
    stores,
    clients: readClients(map.need('clients'), directory, stores),
  };
}

function readCache(value: ConfigValue | undefined, home: string): GatewayConfig['cache'] {
  const map = value?.map(['directory', 'limit', 'low-space']);
  const directory = map?.need('directory')?.parse((text) => resolve(home, text)) ?? '';
  const limitBytes = map?.need('limit')?.parse(parseLimit) ?? 0;
  return { directory, limitBytes, lowSpace: map?.get('low-space')?.oneOf(['act', 'tell']) ?? 'act' };
}

function readStores(value: ConfigValue | undefined): GatewayConfig['stores'] {
  const stores: { readonly name: string; readonly url: string }[] = [];
  for (const each of value?.list(GATEWAY_STORES_MAX) ?? []) {
    const map = each.map(['name', 'to'], SECRETS);
    const name = map.need('name')?.parse(parseStoreName) ?? '';
    const url = map.need('to')?.parse(parseStoreUrl) ?? '';
    if (url.startsWith('gateway+')) map.get('to')?.fail('is a gateway itself; name the store behind it');
    if (stores.some((other) => other.name === name)) map.get('name')?.fail(`is "${name}" again`);
    stores.push({ name, url });
  }
  return stores;
}

function readClients(
  value: ConfigValue | undefined,
  directory: string,
  stores: GatewayConfig['stores'],
): GatewayConfig['clients'] {
  const clients: GatewayConfig['clients'][number][] = [];
  for (const each of value?.list(GATEWAY_CLIENTS_MAX) ?? []) {
    const map = each.map(['name', 'token-file', 'may'], SECRETS);
    const name = map.need('name')?.parse(parseName) ?? '';
    const tokenFile = map.need('token-file')?.parse((text) => resolve(directory, text)) ?? '';
    if (clients.some((other) => other.name === name)) map.get('name')?.fail(`is "${name}" again`);
    clients.push({ name, tokenFile, may: readPlaces(map, stores) });
  }
  return clients;
}

function readPlaces(map: ConfigMap, stores: GatewayConfig['stores']): readonly string[] {
  return (map.need('may')?.list(PLACES_MAX) ?? []).flatMap((value) => {
    const place = value.parse(parsePlace);
    if (place === undefined) return [];
    const isKnown = stores.some(({ name }) => place.split('/')[0] === name);
    if (!isKnown) value.fail(`is "${place}", which begins with none of "stores"`);
    return [place];
  });
}

function parseStoreName(text: string): string {
  if (STORE_NAME.test(text)) return text;
  throw new RangeError(`"${text}" is no name of a store; it has a-z, 0-9 and hyphens`);
}

function parsePlace(text: string): string {
  const isClean = text.split('/').every((segment) => segment !== '.' && segment !== '..');
  if (PLACE.test(text) && isClean) return text;
  throw new RangeError(`"${text}" is no place; write STORE or STORE/PREFIX`);
}

function parseLimit(text: string): number {
  const bytes = parseSize(text);
  if (bytes >= LIMIT_BYTES_MIN) return bytes;
  throw new RangeError(`"${text}" is too small for a cycle; allow 64MiB at least`);
}
