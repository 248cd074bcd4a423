/**
 * House rules that a compiler and a linter cannot hold, or hold only where they are asked: which room may know which,
 * what reaches for the outside, how files begin and how long they get, what documents point to.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, resolve, sep } from 'node:path';
import { describe, expect, it } from 'vitest';
import { FAILPOINT_NAMES } from '../src/ports.ts';

const CHECKOUT = resolve(import.meta.dirname, '..');
const LINES_MAX = 450;

/** What every room may know. */
const GROUND = ['errors.ts', 'limits.ts', 'bytes.ts', 'guid.ts', 'ports.ts', 'wasm.ts', 'secret-file.ts'];

/** Which rooms each room of src may import from, besides the ground and itself. Nothing may import from `cli`. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  vhd: [],
  hrl: [],
  chunker: ['vhd', 'hrl'],
  workers: ['vhd', 'hrl', 'chunker'],
  transport: ['vhd', 'hrl', 'chunker'],
  gateway: ['transport'],
  replica: ['vhd', 'hrl', 'chunker', 'workers', 'transport'],
  tools: ['vhd', 'hrl', 'chunker'],
  tracker: ['vhd', 'hrl', 'chunker', 'workers', 'transport', 'replica'],
  agent: ['vhd', 'hrl', 'chunker', 'workers', 'transport', 'gateway', 'replica', 'tracker'],
  host: [],
  'operations.ts': ['agent'],
  'index.ts': [
    'vhd',
    'hrl',
    'chunker',
    'workers',
    'transport',
    'gateway',
    'replica',
    'tools',
    'tracker',
    'agent',
    'host',
    'operations.ts',
  ],
  cli: ['index.ts'],
  'errors.ts': [],
  'limits.ts': [],
  'bytes.ts': [],
  'guid.ts': [],
  'ports.ts': [],
  'wasm.ts': [],
  'secret-file.ts': ['errors.ts', 'limits.ts', 'ports.ts'],
};

/** Crossings that are not the rule, each with its reason. */
const EXCEPTIONS = new Set([
  // keygen must not load the cloud SDK, which the door of the replica brings along.
  'src/index.ts -> src/replica/key-file.ts',
]);

interface SourceFile {
  readonly path: string;
  readonly text: string;
}

interface Crossing {
  readonly from: string;
  readonly to: string;
}

/** The files of a folder whose names end so, with those of its folders. */
function filesOf(folder: string, ending: string): readonly SourceFile[] {
  return readdirSync(join(CHECKOUT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending))
    .map((name) => fileAt(`${folder}/${name.split(sep).join('/')}`));
}

function fileAt(path: string): SourceFile {
  return { path, text: readFileSync(join(CHECKOUT, path), 'utf8') };
}

const sources = filesOf('src', '.ts');
const testCode = filesOf('test', '.ts').filter(({ path }) => path !== 'test/house-rules.test.ts');
const tests = testCode.filter(({ path }) => path.endsWith('.test.ts'));

/** `src/vhd/x.ts` is in room `vhd`, `src/errors.ts` in `errors.ts`. */
function roomOf(path: string): string {
  return path.split('/')[1]!;
}

/** Every import of one file of src by another, types too. */
function crossings(): readonly Crossing[] {
  return sources.flatMap(({ path, text }) =>
    [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map(([, target]) => ({
      from: path,
      to: normalize(join(dirname(path), target!))
        .split(sep)
        .join('/'),
    })),
  );
}

function isException({ from, to }: Crossing): boolean {
  return EXCEPTIONS.has(`${from} -> ${to}`) || EXCEPTIONS.has(`${from} -> src/${roomOf(to)}`);
}

/** The text without comments, near enough for looking for a word. */
function codeOf(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1');
}

function pathsWith(files: readonly SourceFile[], pattern: RegExp): readonly string[] {
  return files.filter(({ text }) => pattern.test(codeOf(text))).map(({ path }) => path);
}

describe('the rooms of src', () => {
  it('are read whole, so the rules below look at something', () => {
    expect(sources.length).toBeGreaterThan(100);
    expect(crossings().length).toBeGreaterThan(500);
  });

  it('import only from rooms below them', () => {
    const wrong = crossings().filter((crossing) => {
      const [from, to] = [roomOf(crossing.from), roomOf(crossing.to)];
      const allowed = [from, ...GROUND, ...(MAY_IMPORT[from] ?? [])];
      return !allowed.includes(to) && !isException(crossing);
    });
    expect(wrong).toEqual([]);
  });

  it('are entered by their door, index.ts', () => {
    const wrong = crossings().filter((crossing) => {
      const { from, to } = crossing;
      const inRoom = to.split('/').length > 2;
      return inRoom && roomOf(from) !== roomOf(to) && !to.endsWith('/index.ts') && !isException(crossing);
    });
    expect(wrong).toEqual([]);
  });

  it('have no exception that nothing needs', () => {
    const used = new Set(crossings().flatMap(({ from, to }) => [`${from} -> ${to}`, `${from} -> src/${roomOf(to)}`]));
    expect([...EXCEPTIONS].filter((exception) => !used.has(exception))).toEqual([]);
  });
});

describe('what reaches for the outside', () => {
  const isCli = ({ path }: SourceFile): boolean => roomOf(path) === 'cli';
  const isHost = ({ path }: SourceFile): boolean => roomOf(path) === 'host';

  it('reads the environment in the command line only', () => {
    const others = sources.filter((file) => !isCli(file));
    expect(pathsWith(others, /process\.(?:env|argv|exit|cwd)\b/)).toEqual([]);
  });

  it('prints in the command line only', () => {
    const others = sources.filter((file) => !isCli(file));
    expect(pathsWith(others, /\bconsole\.|process\.(?:stdout|stderr)/)).toEqual([]);
  });

  it('takes time, chance and files from ports', () => {
    const others = sources.filter((file) => !isCli(file) && !isHost(file));
    const outside = /\bDate\.now\b|\bnew Date\(\)|Math\.random|\bset(?:Timeout|Interval)\b|performance\.now/;
    expect(pathsWith(others, outside)).toEqual([]);
    expect(pathsWith(others, /from 'node:fs(?:\/promises)?'/)).toEqual([
      'src/workers/file-ranges.ts', // descriptors come in a message; a thread reads and writes them itself
    ]);
  });

  it('has each failpoint on its path', () => {
    const code = sources.filter(({ path }) => path !== 'src/ports.ts').map(({ text }) => codeOf(text));
    expect(FAILPOINT_NAMES.filter((name) => !code.some((text) => text.includes(`'${name}'`)))).toEqual([]);
  });
});

describe('every file', () => {
  it('of src opens with a comment that says what it is', () => {
    const silent = sources.filter(({ text }) => !/^(?:#!.*\n)?\/\*\*/.test(text));
    expect(silent.map(({ path }) => path)).toEqual([]);
  });

  it(`of src is one idea, of at most ${LINES_MAX} lines`, () => {
    const long = sources.filter(({ text }) => text.split('\n').length > LINES_MAX);
    expect(long.map(({ path }) => path)).toEqual([]);
  });

  it('of test runs all it has: it is left out by a condition only, or for a reason found at run time', () => {
    expect(pathsWith(tests, /\b(?:it|test|describe)\.(?:only|todo|fails)\b/)).toEqual([]);
    expect(pathsWith(tests, /\b(?:it|test|describe)\.skip(?:\.|\(\s*['"`])/)).toEqual([]);
    expect(pathsWith(tests, /expect\(true\)/)).toEqual([]);
  });
});

describe('documents', () => {
  const readme = fileAt('README.md');
  const documents = [readme, fileAt('CONTRIBUTING.md'), fileAt('CHANGELOG.md'), ...filesOf('docs', '.md')];

  it('link to files that exist', () => {
    const dead = documents.flatMap(({ path, text }) =>
      [...text.matchAll(/\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)/g)]
        .filter(([, target]) => !existsSync(join(CHECKOUT, dirname(path), target!)))
        .map(([, target]) => `${path}: ${target}`),
    );
    expect(dead).toEqual([]);
  });

  it('of docs are all linked from the README', () => {
    const paths = documents.map(({ path }) => path).filter((path) => path.startsWith('docs/'));
    expect(paths.filter((path) => !readme.text.includes(`(${path})`))).toEqual([]);
  });

  it('name every switch that tests know', () => {
    const page = fileAt('docs/testing.md').text;
    const switches = testCode.flatMap(({ text }) => text.match(/\bBLOCKFERRY_[A-Z_]+\b|\bUPDATE_[A-Z_]+\b/g) ?? []);
    const ofTheProgram = ['BLOCKFERRY_HOME', 'BLOCKFERRY_GATEWAY_TOKEN_FILE', 'BLOCKFERRY_GATEWAY_CA'];
    expect(new Set(switches.filter((name) => !page.includes(`\`${name}`) && !ofTheProgram.includes(name)))).toEqual(
      new Set(),
    );
  });
});
