import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import { generateKeyFile, parseKeyFile } from '../../src/replica/key-file.ts';

const SECRET = Buffer.from('000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 'hex');
const LINE = 'blockferry-key-1 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=';

async function inDirectory(run: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'blockferry-key-'));
  try {
    await run(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

describe('a key file', () => {
  test('is one line of text with the bytes of the random source', async () => {
    await inDirectory(async (directory) => {
      const path = join(directory, 'k');
      const ports = nodePorts();
      await generateKeyFile(path, { files: ports.files, random: { ...ports.random, bytes: () => SECRET } });
      expect(await readFile(path, 'utf8')).toBe(`${LINE}\n`);
      expect(parseKeyFile(await readFile(path), path)).toEqual(SECRET);
    });
  });

  test('can be read by its owner only', async () => {
    await inDirectory(async (directory) => {
      const path = join(directory, 'k');
      await generateKeyFile(path, nodePorts());
      expect((await stat(path)).mode & 0o777).toBe(process.platform === 'win32' ? 0o666 : 0o600);
    });
  });

  test('never goes over another file', async () => {
    await inDirectory(async (directory) => {
      const path = join(directory, 'k');
      await generateKeyFile(path, nodePorts());
      const before = await readFile(path);
      await expect(generateKeyFile(path, nodePorts())).rejects.toMatchObject({ code: 'OUTPUT_EXISTS' });
      expect(await readFile(path)).toEqual(before);
    });
  });

  test('cannot be made in a directory that is not there', async () => {
    await inDirectory(async (directory) => {
      await expect(generateKeyFile(join(directory, 'no', 'k'), nodePorts())).rejects.toMatchObject({
        code: 'OUTPUT_FAILED',
      });
    });
  });

  test.each([LINE, `${LINE}\n`, `${LINE}\r\n`])('is accepted with any line end: %j', (text) => {
    expect(parseKeyFile(Buffer.from(text), 'k')).toEqual(SECRET);
  });

  test.each([
    ['', 'empty'],
    ['correct horse battery staple\n', 'a passphrase'],
    [LINE.replace('key-1', 'key-2'), 'another version'],
    [`${LINE}\n\n`, 'a second line'],
    [` ${LINE}`, 'a blank before it'],
    [LINE.replace('Hh8=', 'Hh9='), 'base64 with stray bits'],
    [LINE.replace('8=', ''), 'a short key'],
    [`blockferry-key-1 ${Buffer.alloc(33).toString('base64')}`, 'a long key'],
  ])('is refused: %j (%s)', (text) => {
    expect(() => parseKeyFile(Buffer.from(text), 'k')).toThrow(expect.objectContaining({ code: 'KEY_INVALID' }));
  });
});
