/** What the short way does beside what the contract and the traps show of it: tokens. */
import type { TokenCredential } from '@azure/identity';
import { beforeEach, describe, expect, it } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import { AzureToken } from '../../src/transport/azure-token.ts';
import { AzureWire, targetOf } from '../../src/transport/azure-wire.ts';

const HOUR_MS = 3_600_000;

let nowMs: number;
let asked: string[];
let next: () => Promise<{ token: string; expiresOnTimestamp: number } | null>;
let token: AzureToken;

beforeEach(() => {
  nowMs = 1_000_000;
  asked = [];
  next = async () => ({ token: `token ${asked.length}`, expiresOnTimestamp: nowMs + HOUR_MS });
  const credential: TokenCredential = {
    getToken: (scopes) => {
      asked.push(String(scopes));
      return next();
    },
  };
  token = new AzureToken(credential, { ...nodePorts().clock, nowMs: () => nowMs });
});

describe('a token', () => {
  it('is asked for once, also by many at a time, and again five minutes before it expires', async () => {
    expect(await Promise.all([token.text(), token.text()])).toEqual(['token 1', 'token 1']);
    nowMs += HOUR_MS - 300_001;
    expect(await token.text()).toBe('token 1');
    nowMs += 1;
    expect(await token.text()).toBe('token 2');
    expect(asked).toEqual(['https://storage.azure.com/.default', 'https://storage.azure.com/.default']);
  });

  it('that the service refused, or that could not be had, is asked for again', async () => {
    await token.text();
    token.drop();
    expect(await token.text()).toBe('token 2');
    token.drop();
    next = async () => null;
    await expect(token.text()).rejects.toMatchObject({ name: 'AuthenticationError' });
    next = () => Promise.reject(new Error('offline'));
    await expect(token.text()).rejects.toThrow('offline');
    next = async () => ({ token: 'at last', expiresOnTimestamp: nowMs + HOUR_MS });
    expect(await token.text()).toBe('at last');
  });

  it('never goes out without encryption', async () => {
    const wire = new AzureWire({ getToken: () => next() }, nodePorts().clock);
    const target = targetOf('http://127.0.0.1:9/account/disks/base', { comp: 'page' });
    const { signal } = new AbortController();
    const request = { target, headers: {} };
    await expect(wire.upload(request, Buffer.alloc(512), signal)).rejects.toMatchObject({ code: 'USAGE' });
    await expect(wire.fetch(request, signal)).rejects.toMatchObject({ code: 'USAGE' });
    expect(asked).toEqual([]);
  });
});
