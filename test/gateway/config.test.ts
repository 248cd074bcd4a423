/** The `gateway` section of a configuration: what it makes of a file, and every mistake that it tells. */
import { describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/agent/daemon/config.ts';

const GOOD = `
home: /var/lib/blockferry
gateway-token-file: token
gateway:
  listen: 0.0.0.0:9443
  certificate: tls/gateway.pem
  key: tls/gateway.key
  cache: { directory: cache, limit: 200GiB }
  stores: [{ name: cloud, to: 'https://account.blob.core.windows.net/replicas' }]
  clients: [{ name: host1, token-file: host1.token, may: [cloud/host1, cloud/shared/x] }]
`;

function mistakes(change: (text: string) => string): string {
  try {
    loadConfig(change(GOOD), '/etc/bf/agent.yaml');
  } catch (error) {
    return (error as Error).message;
  }
  return '';
}

describe('a configuration with a gateway', () => {
  it('needs no machine', () => {
    const config = loadConfig(GOOD, '/etc/bf/agent.yaml');
    expect(config.machines).toEqual([]);
    expect(config.gatewayTokenFile).toBe('/etc/bf/token');
    expect(config.gateway).toEqual({
      listen: { host: '0.0.0.0', port: 9443 },
      tls: { certificate: '/etc/bf/tls/gateway.pem', key: '/etc/bf/tls/gateway.key' },
      cache: { directory: '/etc/bf/cache', limitBytes: 200 * 2 ** 30, lowSpace: 'act' },
      stores: [{ name: 'cloud', url: 'https://account.blob.core.windows.net/replicas' }],
      clients: [{ name: 'host1', tokenFile: '/etc/bf/host1.token', may: ['cloud/host1', 'cloud/shared/x'] }],
    });
  });

  it('serves the loopback without a certificate, and nobody else', () => {
    const open = (text: string): string => text.replace(/ {2}(certificate|key): .*\n/g, '');
    expect(mistakes((text) => open(text).replace('0.0.0.0', '127.0.0.1'))).toBe('');
    expect(mistakes(open)).toMatch(/serves the loopback only/);
  });

  it.each([
    [
      'a certificate without its key',
      (text: string) => text.replace(/ {2}key: .*\n/, ''),
      /"certificate" and "key" together/,
    ],
    [
      'a token in the file',
      (text: string) => text.replace('token-file: host1.token', 'token: abc'),
      /secrets do not stand/,
    ],
    ['a SAS in a URL', (text: string) => text.replace('/replicas', '/replicas?sig=1'), /carries a SAS/],
    [
      'a gateway behind it',
      (text: string) => text.replace('https://account', 'gateway+https://account'),
      /is a gateway itself/,
    ],
    ['a place at no store', (text: string) => text.replace('cloud/host1', 'clod/host1'), /none of "stores"/],
    ['a place that climbs', (text: string) => text.replace('cloud/host1', 'cloud/../x'), /is no place/],
    ['a cache without a limit', (text: string) => text.replace(', limit: 200GiB', ''), /lacks "limit"/],
    ['a cache that is too small', (text: string) => text.replace('200GiB', '1MiB'), /too small/],
    [
      'a key that is not known',
      (text: string) => text.replace('  listen:', '  port: 1\n  listen:'),
      /"port" is not a known key/,
    ],
  ])('tells %s', (_, change, message) => {
    expect(mistakes(change)).toMatch(message);
  });
});
