/** One process at a time, through kills and races. */
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lockDirectory, nodeFileSystem } from '../../src/host/index.ts';
import type { FileSystem, ProcessLock } from '../../src/ports.ts';

const files = nodeFileSystem();
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'blockferry-lock-'));
});
afterEach(() => rm(directory, { recursive: true }));

const take = () => lockDirectory(directory, 'the test', files);

/** Writes a lock as another holder would have. */
function plant(number: number, holder: { host: string; processId: number; started: string }): Promise<void> {
  return writeFile(join(directory, `lock-${number}`), JSON.stringify(holder));
}

describe('a process lock', () => {
  it('is held by one at a time, and free after its release', async () => {
    const lock = await take();
    await expect(take()).rejects.toMatchObject({ code: 'ITEM_LOCKED', facts: { processId: process.pid } });
    await lock.release();
    await (await take()).release();
    expect(await readdir(directory)).toHaveLength(1);
  });

  it('of a killed process is taken over', async () => {
    const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)']);
    await plant(3, { host: hostname(), processId: child.pid!, started: 'whatever it was' });
    const exited = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await exited;
    await (await take()).release();
    expect(await readdir(directory)).toEqual(['lock-4']);
  });

  it('removes what killed processes were writing, and leaves what others write', async () => {
    const child = spawn(process.execPath, ['-e', '']);
    await new Promise((resolve) => child.once('exit', resolve));
    const kept = [`state.json.${process.pid}-1.tmp`, 'notes.tmp'];
    for (const name of [`state.json.${child.pid}-1.tmp`, `anchor.json.${child.pid}-27.tmp`, ...kept]) {
      await writeFile(join(directory, name), '');
    }
    await (await take()).release();
    expect(await readdir(directory)).toEqual(['lock-1', ...kept].sort());
  });

  it('of a process whose id was given to another one is taken over', async () => {
    await plant(1, { host: hostname(), processId: process.pid, started: 'long ago' });
    await (await take()).release();
  });

  it('of another machine is respected: nobody here can tell whether its holder lives', async () => {
    await plant(1, { host: 'elsewhere.example', processId: 1, started: '' });
    await expect(take()).rejects.toMatchObject({ code: 'ITEM_LOCKED', facts: { host: 'elsewhere.example' } });
  });

  it('that a crash left half written counts as nobody’s', async () => {
    await writeFile(join(directory, 'lock-1'), '{"host":');
    await (await take()).release();
  });

  it('goes with its directory where its holder wants that, but not with what others keep there', async () => {
    const inner = join(directory, 'inner');
    await mkdir(inner);
    await (await lockDirectory(inner, 'the test', files)).remove();
    expect(await readdir(directory)).toEqual([]);
    await writeFile(join(directory, 'notes'), '');
    await (await take()).remove();
    expect(await readdir(directory)).toEqual(['notes']);
  });

  it('is not taken from who began with the first number again, by whom found the last one dead', async () => {
    await writeFile(join(directory, 'lock-1'), '');
    let other: ProcessLock | undefined;
    const slow: FileSystem = {
      ...files,
      async createExclusive(path, bytes) {
        // Between what it read and what it writes, somebody takes the lock, removes it, and another one begins anew.
        if (!other) {
          await (await take()).remove();
          await mkdir(directory, { recursive: true });
          other = await take();
        }
        return files.createExclusive(path, bytes);
      },
    };
    await expect(lockDirectory(directory, 'the test', slow)).rejects.toMatchObject({ code: 'ITEM_LOCKED' });
    await expect(take()).rejects.toMatchObject({ code: 'ITEM_LOCKED' });
    await other!.release();
  });

  it('lets exactly one of many newcomers in, whatever their order', async () => {
    for (let round = 0; round < 20; round += 1) {
      const results = await Promise.allSettled(Array.from({ length: 8 }, take));
      const held = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
      expect(held).toHaveLength(1);
      await held[0]!.release();
    }
  });
});
