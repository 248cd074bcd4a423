/** Tokens of a gateway's clients: which ones are taken, and what each client may use. */
import { describe, expect, it } from 'vitest';
import { assertMay, Clients } from '../../src/gateway/clients.ts';
import { memoryFileSystem } from '../support/memory-files.ts';

const TOKEN = 'a'.repeat(32);

function load(tokens: Readonly<Record<string, string>>): Promise<Clients> {
  const files = memoryFileSystem();
  const configs = Object.keys(tokens).map((name) => ({ name, tokenFile: `/${name}.token`, may: [`store/${name}`] }));
  const written = Object.entries(tokens).map(([name, text]) =>
    files.createExclusive(`/${name}.token`, Buffer.from(text)),
  );
  return Promise.all(written).then(() => Clients.load(configs, files));
}

describe('a client of a gateway', () => {
  it('is known by its token, and by no other', async () => {
    const clients = await load({ web: `${TOKEN}\n`, db: 'b'.repeat(64) });
    expect(clients.authenticate(`Bearer ${TOKEN}`).name).toBe('web');
    expect(clients.authenticate(`Bearer ${'b'.repeat(64)}`).name).toBe('db');
    for (const header of [undefined, '', 'Bearer', `Bearer ${TOKEN}a`, `Basic ${TOKEN}`, `Bearer ${'c'.repeat(32)}`]) {
      expect(() => clients.authenticate(header)).toThrow(expect.objectContaining({ code: 'STORE_AUTHENTICATION' }));
    }
  });

  it('may use its place and what lies below it', async () => {
    const client = (await load({ web: TOKEN })).authenticate(`Bearer ${TOKEN}`);
    assertMay(client, 'store/web');
    assertMay(client, 'store/web/disks');
    for (const place of ['store', 'store/web2', 'store/we', 'other/web']) {
      expect(() => assertMay(client, place)).toThrow(expect.objectContaining({ code: 'STORE_AUTHENTICATION' }));
    }
  });

  it.each([
    ['is short', 'a'.repeat(31)],
    ['has blanks', `${TOKEN} ${TOKEN}`],
    ['has two lines', `${TOKEN}\n${TOKEN}`],
    ['is no text', `${TOKEN}\0`],
    ['is empty', ''],
  ])('has no token that %s', async (_what, token) => {
    await expect(load({ web: token })).rejects.toMatchObject({
      code: 'KEY_INVALID',
      facts: { source: '/web.token', rule: expect.stringContaining('32') },
    });
  });

  it('shares its token with nobody', async () => {
    await expect(load({ web: TOKEN, db: `${TOKEN}\n` })).rejects.toMatchObject({
      code: 'KEY_INVALID',
      message: expect.stringContaining('clients "web" and "db" have the same token'),
    });
  });

  it('whose token cannot be read is told with the file', async () => {
    await expect(load({ web: 'a'.repeat(1024 * 1024 * 2) })).rejects.toMatchObject({
      code: 'KEY_MISSING',
      message: expect.stringContaining('/web.token: cannot be read'),
    });
    const missing = [{ name: 'web', tokenFile: '/none', may: [] }];
    await expect(Clients.load(missing, memoryFileSystem())).rejects.toMatchObject({
      code: 'KEY_MISSING',
      hint: expect.stringContaining('openssl rand'),
    });
  });
});
