/**
 * One run of the program, from its arguments to its exit code. Every command goes through here, so there is one place
 * where signals are heard, errors are told and exit codes are chosen.
 */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type Command, CommanderError } from 'commander';
import { BlockferryError, nodePorts, parseFailpoints } from '../index.ts';
import type { GlobalOptions, Start } from './context.ts';
import { EXIT, type ExitCode, exitCodeOfError } from './exit-codes.ts';
import { Output } from './output.ts';
import { createProgram } from './program.ts';
import { Progress } from './progress.ts';
import { listenToSignals } from './signals.ts';
import { Stdout } from './stdout.ts';

/** Runs the program and ends the process. */
export async function run(args: readonly string[]): Promise<never> {
  // A terminal that was closed is no reason to stop a replication.
  process.stderr.on('error', () => {});
  let progress: Progress | undefined;
  const { signal, onHangup } = listenToSignals({
    onStop() {
      progress?.clear();
      process.stderr.write('blockferry: stopping; once more to stop at once\n');
    },
    onKill: () => leave(EXIT.interrupted, stdout),
    onProgress: () => progress?.print(),
  });
  const stdout = new Stdout(1, signal);
  let output = new Output(stdout, outputOptions(beforeParsing(args)));
  let exitCode: ExitCode = EXIT.done;

  const start: Start = async (command, body) => {
    const options = command.optsWithGlobals<GlobalOptions>();
    output = new Output(stdout, outputOptions(options));
    const ports = nodePorts(parseFailpoints(process.env['BLOCKFERRY_FAILPOINTS']));
    progress = new Progress(ports.clock, output);
    exitCode = await body({ output, progress, ports, signal, onHangup, home: homeDirectory(options) });
  };

  try {
    await parse(createProgram(start), args);
    progress?.end();
  } catch (error) {
    progress?.clear();
    if (!(error instanceof CommanderError)) {
      await output.error(error).catch(() => {});
      exitCode = exitCodeOfError(error);
    } else if (error.exitCode !== 0) {
      await output.error(usageError(error, args)).catch(() => {});
      exitCode = EXIT.usage;
    }
  }
  try {
    await stdout.flush();
  } catch (error) {
    if (exitCode === EXIT.done) {
      await output.error(error);
      exitCode = exitCodeOfError(error);
    }
  }
  return leave(exitCode, stdout);
}

async function parse(program: Command, args: readonly string[]): Promise<void> {
  await program.parseAsync(args, { from: 'user' });
}

/** What must be known to report an error in the arguments themselves. */
function beforeParsing(args: readonly string[]): GlobalOptions {
  const options = args.slice(0, args.includes('--') ? args.indexOf('--') : args.length);
  return { ...(options.includes('--json') ? { json: true } : {}), color: !options.includes('--no-color') };
}

function outputOptions({ json, quiet, verbose, color }: GlobalOptions): ConstructorParameters<typeof Output>[1] {
  const noColor = process.env['NO_COLOR'];
  return {
    json: json ?? false,
    quiet: quiet ?? false,
    verbose: verbose ?? false,
    color: color && (noColor === undefined || noColor === ''),
  };
}

function homeDirectory({ home }: GlobalOptions): string {
  const fromEnvironment = process.env['BLOCKFERRY_HOME'];
  return home ?? (fromEnvironment ? fromEnvironment : join(homedir(), '.blockferry'));
}

/** commander's complaint in our words: one sentence in lower case, its suggestion as the hint. */
function usageError(error: CommanderError, args: readonly string[]): BlockferryError {
  const [first = '', suggestion] = error.message.split('\n');
  const command = args.find((arg) => !arg.startsWith('-'));
  const help = `see "blockferry ${error.code === 'commander.unknownCommand' || command === undefined ? '' : `${command} `}--help"`;
  if (error.code === 'commander.help') return new BlockferryError('USAGE', 'no command is given', { hint: help });
  const message = first
    .replace(/^error: /, '')
    .replace(/\.$/, '')
    .replace(/\. (?=\S)/, ': ')
    .replace(/: (Expected|Allowed) /, (words) => words.toLowerCase());
  return new BlockferryError('USAGE', message, { hint: suggestion?.replace(/^\(D(.*)\)$/, 'd$1') ?? help });
}

/**
 * Ends the process. process.exit waits for the thread pool, so it never returns while a write to a stalled pipe is under
 * way; then the process ends itself as Ctrl-C would (a shell shows 130).
 */
function leave(exitCode: ExitCode, stdout: Stdout): never {
  if (stdout.stuck && process.platform !== 'win32') {
    process.removeAllListeners('SIGINT');
    process.kill(process.pid, 'SIGINT');
  }
  process.exit(exitCode);
}
