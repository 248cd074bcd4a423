import { readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { EXIT_MEANINGS } from '../../src/cli/exit-codes.ts';
import { createProgram } from '../../src/cli/program.ts';
import { ERROR_CODES } from '../../src/index.ts';
import { expectTranscript, runCli } from './support.ts';

/** `info`, `key add` …, in the order of the help. */
function commandPaths(): string[][] {
  const program = createProgram(async () => {});
  return program.commands.flatMap((command) =>
    command.commands.length === 0
      ? [[command.name()]]
      : [[command.name()], ...command.commands.map((inner) => [command.name(), inner.name()])],
  );
}

describe('help', () => {
  test('of the program', async () => {
    await expectTranscript('help', [['--help']]);
  });

  for (const path of commandPaths()) {
    test(`of ${path.join(' ')}`, async () => {
      await expectTranscript(`help-${path.join('-')}`, [[...path, '--help']]);
    });
  }

  test('of every command that does something shows a worked example of itself', () => {
    const program = createProgram(async () => {});
    for (const path of commandPaths()) {
      const command = path.reduce((parent, name) => parent.commands.find((c) => c.name() === name) ?? parent, program);
      if (command.commands.length > 0) continue;
      let text = '';
      command.configureOutput({
        writeOut: (part) => {
          text += part;
        },
      });
      command.outputHelp();
      expect(text).toMatch(new RegExp(`Example:\n {2}blockferry ${path.join(' ')} `));
    }
  });

  test('prints the version of the package', async () => {
    const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    expect(await runCli(['--version'])).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: '' });
  });
});

describe('the manual', () => {
  const read = (name: string): Promise<string> => readFile(new URL(`../../docs/${name}`, import.meta.url), 'utf8');

  test('docs/errors.md has a row for every error code, with its exit code, and no other', async () => {
    const rows = [...(await read('errors.md')).matchAll(/^\| `([A-Z_]+)` \| ([^|]+) \| (\d+) \| ([^|]+) \|$/gm)];
    const listed = Object.fromEntries(rows.map(([, code, , exit]) => [code, Number(exit)]));
    const { exitCodeOfError } = await import('../../src/cli/exit-codes.ts');
    const { BlockferryError } = await import('../../src/index.ts');
    const expected = Object.keys(ERROR_CODES).map((code) => [
      code,
      exitCodeOfError(new BlockferryError(code as keyof typeof ERROR_CODES, 'x')),
    ]);
    expect(listed).toEqual(Object.fromEntries(expected));
  });

  test('docs/cli.md describes every command, every option and every exit code', async () => {
    const text = await read('cli.md');
    const program = createProgram(async () => {});
    for (const path of commandPaths()) expect(text).toContain(`blockferry ${path.join(' ')}`);
    const commands = program.commands.flatMap((command) => [command, ...command.commands]);
    for (const command of [program, ...commands]) {
      for (const option of command.options) expect(text).toContain(option.long);
    }
    for (const [code, meaning] of EXIT_MEANINGS) expect(text).toContain(`| ${code} | ${meaning} |`);
  });
});
