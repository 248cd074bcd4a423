import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import { KIB, MIB } from '../../src/bytes.ts';
import { patterned } from '../tools/fake-disk.ts';
import { expectTranscript, type Filter, inScratch, records, runCli } from './support.ts';

function content(): Buffer {
  const bytes = Buffer.alloc(8 * MIB);
  bytes.set(patterned(MIB, 1), 0);
  bytes.set(patterned(300 * KIB, 2), 5 * MIB);
  return bytes;
}

/** A scratch directory with `disk.raw`, a key file, and the URL of a folder store. */
async function inScratchWithItem(body: (cwd: string, url: string) => Promise<void>): Promise<void> {
  await inScratch(async (cwd) => {
    await writeFile(join(cwd, 'disk.raw'), content());
    await runCli(['keygen', 'a.key'], { cwd });
    await body(cwd, pathToFileURL(join(cwd, 'store')).href);
  });
}

/** Times, rates and durations; compressed sizes follow the library that compresses and are left out too. */
const filter: Filter = (text) =>
  text
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')
    .replace(/(elapsedMs|pointTimeMs|lastPointMs|rpoMs|estimatedMs|fullCopyMs)":[\d.]+/g, '$1":N')
    .replace(/(sentBytes|bytesRead|transferredBytes)":\d+/g, '$1":N')
    .replace(/in [\d.]+ s/g, 'in N s')
    .replace(/[\d.]+ s ago/g, 'N s ago')
    .replace(/RPO [\d.]+ s/g, 'RPO N s')
    .replace(/about [\d.]+ s/g, 'about N s');

describe('the replica commands', () => {
  test('protect, look at, verify and bring back', async () => {
    await inScratchWithItem(async (cwd, url) => {
      await expectTranscript(
        'replica',
        [
          ['protect', 'web1', 'disk.raw', '--to', url, '--key-file', 'a.key'],
          ['status'],
          ['status', 'web1'],
          ['status', 'web1', '--json'],
          ['points', 'web1'],
          ['points', 'web1', '--json'],
          ['verify', 'web1'],
          ['verify', 'web1', '--source', '--json'],
          ['resync', 'web1', '--dry-run'],
          ['resync', 'web1', '--dry-run', '--json'],
          ['key', 'list', 'web1'],
          ['key', 'rotate', 'web1', '--json'],
          ['failover', 'web1', '--out', 'restored', '--format', 'raw'],
          ['failover', 'web1', '--out', 'restored', '--format', 'raw'],
          ['failover', 'web1', '--from', url, '--key-file', 'a.key', '--out', 'far', '--format', 'raw', '--json'],
        ],
        { cwd, filter },
      );
      for (const directory of ['restored', 'far']) {
        const [name = ''] = await readdir(join(cwd, directory));
        expect((await readFile(join(cwd, directory, name))).equals(content())).toBe(true);
      }
    });
  });

  test('errors of the replica have their exit codes', async () => {
    await inScratchWithItem(async (cwd, url) => {
      await runCli(['protect', 'web1', 'disk.raw', '--to', url, '--key-file', 'a.key'], { cwd });
      await runCli(['keygen', 'b.key'], { cwd });
      await expectTranscript(
        'replica-errors',
        [
          ['status', 'nobody'],
          ['points', 'web1', '--from', url],
          ['points', 'web1', '--key-file', 'a.key'],
          ['points', 'web1', '--from', url, '--key-file', 'b.key'],
          ['points', 'web1', '--from', url, '--key-file', 'missing.key'],
          ['points', 'web1', '--from', `${url}2`, '--key-file', 'a.key'],
          ['protect', 'web2', 'disk.raw'],
          ['protect', 'web2', 'disk.raw', '--to', 'ftp://x/y'],
          ['failover', 'web1', '--out', 'o', '--point', 'p99'],
          ['verify', 'web1', '--subset', '0'],
          ['resync', 'web1', '--lanes', '33'],
          ['key', 'add', 'web1'],
          ['key', 'remove', 'web1', 'k1'],
        ],
        { cwd, filter },
      );
    });
  });

  test('a dry run that finds differences ends with 0, verify --source with 3, and resync mends it', async () => {
    await inScratchWithItem(async (cwd, url) => {
      await runCli(['protect', 'web1', 'disk.raw', '--to', url, '--key-file', 'a.key'], { cwd });
      const changed = content();
      changed.set(patterned(4096, 77), 3 * MIB);
      await writeFile(join(cwd, 'disk.raw'), changed);

      const dryRun = await runCli(['resync', 'web1', '--dry-run', '--json'], { cwd });
      expect(dryRun.code).toBe(0);
      expect(records(dryRun)).toEqual([expect.objectContaining({ type: 'estimate', differingBytes: 256 * KIB })]);

      const verify = await runCli(['verify', 'web1', '--source', '--json'], { cwd });
      expect(verify.code).toBe(3);
      expect(records(verify).at(-1)).toMatchObject({ type: 'verify', sourceDifferences: 1, damage: 0 });

      const resync = await runCli(['resync', 'web1', '--json'], { cwd });
      expect(resync.code).toBe(0);
      expect(records(resync)).toEqual([expect.objectContaining({ type: 'sync', changed: true })]);
      expect((await runCli(['verify', 'web1', '--source'], { cwd })).code).toBe(0);
    });
  });

  test('verify names each damaged chunk and ends with 8', async () => {
    await inScratchWithItem(async (cwd, url) => {
      await runCli(['protect', 'web1', 'disk.raw', '--to', url, '--key-file', 'a.key'], { cwd });
      await damageBase(join(cwd, 'store'));
      const verify = await runCli(['verify', 'web1', '--json'], { cwd });
      expect(verify.code).toBe(8);
      const found = records(verify);
      expect(found[0]).toEqual({ type: 'damage', disk: 'd0', chunk: expect.any(Number), message: expect.any(String) });
      expect(found.at(-1)).toMatchObject({ type: 'verify', damage: found.length - 1 });
    });
  });

  test('local state is where --home or BLOCKFERRY_HOME says', async () => {
    await inScratchWithItem(async (cwd, url) => {
      const home = join(cwd, 'state');
      await runCli(['protect', 'web1', 'disk.raw', '--to', url, '--home', home], { cwd });
      expect(records(await runCli(['status', '--json'], { cwd, env: { BLOCKFERRY_HOME: home } }))).toHaveLength(1);
      const elsewhere = await runCli(['status', '--json', '--home', join(cwd, 'other')], { cwd });
      expect(elsewhere).toMatchObject({ code: 0, stdout: '', stderr: expect.stringContaining('no items in') });
    });
  });

  test('a failpoint that is armed stops a run where a crash would', async () => {
    await inScratchWithItem(async (cwd, url) => {
      const args = ['protect', 'web1', 'disk.raw', '--to', url, '--key-file', 'a.key'];
      const killed = await runCli(args, { cwd, env: { BLOCKFERRY_FAILPOINTS: 'sync.after-slots=kill' } });
      expect(killed.signal).toBe('SIGKILL');
      const failed = await runCli(args, { cwd, env: { BLOCKFERRY_FAILPOINTS: 'sync.after-pages=error' } });
      expect(failed).toMatchObject({ code: 1, stderr: expect.stringContaining('failpoint sync.after-pages') });
      expect((await runCli(args, { cwd })).code).toBe(0);
    });
  });
});

/** Turns a bit in the middle of every large file below `directory`. */
async function damageBase(directory: string): Promise<void> {
  const names = await readdir(directory, { recursive: true, withFileTypes: true });
  for (const entry of names) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || !/(^|\/)base/.test(path.slice(directory.length + 1))) continue;
    const bytes = await readFile(path);
    if (bytes.byteLength < 2 * MIB) continue;
    const at = MIB + 4096;
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    await rm(path);
    await writeFile(path, bytes);
  }
}
