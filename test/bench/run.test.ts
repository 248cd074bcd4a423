/** The bench as a program: what fails is told and costs nothing else, and a run that is killed leaves nothing behind. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, expect, it } from 'vitest';
import { missingTool } from '../support/tools.ts';

const CHECKOUT = resolve(import.meta.dirname, '../..');
const PROGRAM = join(CHECKOUT, 'build/bench/main.js');
const WAIT_MS_MAX = 60_000;

beforeAll(() => {
  const compiler = join(CHECKOUT, 'node_modules/typescript/bin/tsc');
  execFileSync(process.execPath, [compiler, '-p', join(CHECKOUT, 'tsconfig.bench.json')], { cwd: CHECKOUT });
});

function startBench(args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
  const stdio = ['ignore', 'pipe', 'inherit'] as const;
  return spawn(process.execPath, [PROGRAM, '--smoke', ...args], { env: { ...process.env, ...env }, stdio: [...stdio] });
}

it('one row that cannot run is told, the others run, and the exit code is 1', async () => {
  // No inputs from other runs, and nothing on the path that makes any: the upload has no disk to send.
  const directory = mkdtempSync(join(tmpdir(), 'blockferry-run-'));
  try {
    const child = startBench(['--only', 'upload,calls'], { PATH: directory, TMPDIR: directory });
    let said = '';
    child.stdout!.on('data', (piece) => {
      said += String(piece);
    });
    const [code] = (await once(child, 'close')) as [number];
    expect(said).toMatch(/^upload: failed: qemu-img is not installed/m);
    expect(said).toMatch(/^calls: message to a worker and back, of no chunks: /m);
    expect(code).toBe(1);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

/** What a process was started with; empty for one that is gone. */
function argumentsOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

function parentOf(pid: string): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]!;
  } catch {
    return '';
  }
}

function descendantsOf(pid: string): readonly string[] {
  const all = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const children = all.filter((each) => parentOf(each) === pid);
  return children.flatMap((child) => [child, ...descendantsOf(child)]);
}

async function until<T>(look: () => T | undefined): Promise<T> {
  const endMs = performance.now() + WAIT_MS_MAX;
  for (;;) {
    const found = look();
    if (found !== undefined) return found;
    if (performance.now() > endMs) throw new Error('it did not come to that');
    await sleep(20);
  }
}

const noServer = process.platform === 'linux' ? (missingTool('fio') ?? missingTool('time')) : '/proc is of Linux';

it.skipIf(noServer !== undefined)('a bench that is killed leaves no server and no directory', async () => {
  const child = startBench(['--only', 'tracker']);
  child.stdout!.resume();
  const ended = once(child, 'exit');
  const serving = await until(() => {
    const started = descendantsOf(String(child.pid));
    return started.some((pid) => argumentsOf(pid).includes(' track vm ')) ? started : undefined;
  });
  const directory = /--home (\S+)\/home/.exec(serving.map(argumentsOf).join('\n'))![1]!;
  expect(existsSync(directory)).toBe(true);
  expect(serving.some((pid) => argumentsOf(pid).includes('discarding-process'))).toBe(true);
  child.kill('SIGKILL');
  await ended;
  await until(() => (serving.every((pid) => argumentsOf(pid) === '') && !existsSync(directory) ? true : undefined));
});
