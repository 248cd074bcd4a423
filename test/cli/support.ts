/** Running the built program, and transcripts of what it says. `npm run build` must have been run. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
/** Where local state goes unless a test says so: not what another test, or its tester, has there. */
const HOME = mkdtempSync(join(tmpdir(), 'blockferry-home-'));
process.on('exit', () => rmSync(HOME, { recursive: true, force: true }));
const TRANSCRIPTS = fileURLToPath(new URL('./transcripts/', import.meta.url));

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

export interface RunResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** stdout byte by byte. */
  readonly bytes: Buffer;
}

/** Starts the program; nothing of the tester's environment that it would look at comes through. */
export function startCli(args: readonly string[], options: RunOptions = {}): ChildProcess {
  if (!existsSync(MAIN)) throw new Error(`${MAIN} is missing: run "npm run build" first`);
  const { PATH = '', SystemRoot = '' } = process.env;
  return spawn(process.execPath, [MAIN, ...args], {
    cwd: options.cwd,
    env: { PATH, SystemRoot, HOME: options.cwd ?? HOME, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Runs the program to its end. */
export async function runCli(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return await finished(startCli(args, options));
}

/** What a started program has said when it ended. */
export async function finished(child: ChildProcess): Promise<RunResult> {
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout?.on('data', (bytes: Buffer) => out.push(bytes));
  child.stderr?.on('data', (bytes: Buffer) => err.push(bytes));
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (...result) => resolve(result));
  });
  const bytes = Buffer.concat(out);
  return { code, signal, bytes, stdout: bytes.toString('utf8'), stderr: Buffer.concat(err).toString('utf8') };
}

/** The JSON records that a run printed. */
export function records(result: RunResult): Record<string, unknown>[] {
  return result.stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** Runs `body` in a directory of its own, which is removed afterwards. */
export async function inScratch(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'blockferry-cli-'));
  try {
    await body(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Replaces what differs from run to run. */
export type Filter = (text: string) => string;

/** Runs the commands one after the other and compares all they say with the transcript of that name. */
export async function expectTranscript(
  name: string,
  commands: readonly (readonly string[])[],
  options: RunOptions & { readonly filter?: Filter } = {},
): Promise<void> {
  const parts: string[] = [];
  for (const args of commands) {
    const { code, stdout, stderr } = await runCli(args, options);
    const said = stderr.replace(/^(?=.)/gm, 'stderr| ');
    parts.push(`$ blockferry ${args.join(' ')}\n${stdout}${said}exit ${code}\n`);
  }
  const filter = options.filter ?? ((text) => text);
  const text = filter(parts.join('\n')).replaceAll(options.cwd ?? '\0', 'SCRATCH');
  const path = join(TRANSCRIPTS, `${name}.txt`);
  if (process.env['UPDATE_TRANSCRIPTS'] === '1') {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
  }
  expect(text).toBe(await readFile(path, 'utf8'));
}
