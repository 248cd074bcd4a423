/** The command tree: global options, all commands, and what `--help` says around them. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { addAgent } from './agent.ts';
import { addApply } from './apply.ts';
import { addCancel } from './cancel.ts';
import { addCheck } from './check.ts';
import { addCommit } from './commit.ts';
import type { AddCommand, Start } from './context.ts';
import { addConvert } from './convert.ts';
import { addDigest } from './digest.ts';
import { EXIT_MEANINGS } from './exit-codes.ts';
import { addFailback } from './failback.ts';
import { addFailover } from './failover.ts';
import { addHrlCommands } from './hrl.ts';
import { addInfo } from './info.ts';
import { addKeyCommands } from './key.ts';
import { addKeygen } from './keygen.ts';
import { addMap } from './map.ts';
import { addMirror } from './mirror.ts';
import { withExample } from './options.ts';
import { addPoints } from './points.ts';
import { addProtect } from './protect.ts';
import { addResync } from './resync.ts';
import { addReverse } from './reverse.ts';
import { addShip } from './ship.ts';
import { addStatus } from './status.ts';
import { addTrack } from './track.ts';
import { addVerify } from './verify.ts';

/** In the order of `--help`. */
const COMMANDS: readonly AddCommand[] = [
  addInfo,
  addCheck,
  addMap,
  addConvert,
  addDigest,
  addKeygen,
  addProtect,
  addTrack,
  addShip,
  addApply,
  addMirror,
  addResync,
  addStatus,
  addPoints,
  addVerify,
  addFailover,
  addCommit,
  addCancel,
  addFailback,
  addReverse,
  addAgent,
  addKeyCommands,
  addHrlCommands,
];

const ENVIRONMENT = [
  '  AZURE_STORAGE_CONNECTION_STRING  credentials of the storage account; else a SAS in the URL, else the identity',
  '                                   that DefaultAzureCredential finds',
  '  BLOCKFERRY_HOME                  directory of local state, as --home',
  '  NO_COLOR                         no colour, as --no-color',
];

/** The whole program. It throws CommanderError instead of exiting, and prints help only. */
export function createProgram(start: Start): Command {
  const program = new Command('blockferry')
    .description('Block replication for virtual disks: to Azure page blobs or a folder, and back byte for byte.')
    .usage('<command> [options]')
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand('help [command]', 'print the help of a command')
    .option('--json', 'results as JSON lines on stdout, each with a "type"')
    .option('-q, --quiet', 'no notes and no progress')
    .option('-v, --verbose', 'details, and where an error comes from')
    .option('--no-color', 'no colour on a terminal')
    .option('--home <dir>', 'directory of local state (default: ~/.blockferry)')
    .configureHelp({
      showGlobalOptions: true,
      helpWidth: 100,
      // The flags name the choices already.
      optionDescription: (option) => option.description,
    })
    .configureOutput({ outputError: () => {}, writeErr: () => {} })
    .exitOverride();
  withExample(
    program,
    'blockferry keygen web1.key',
    'blockferry protect web1 web1.vhdx --to file:///srv/replicas/web1 --key-file web1.key',
    'blockferry failover web1 --point latest --out /srv/restored',
  );
  program.addHelpText(
    'after',
    `\nEnvironment:\n${ENVIRONMENT.join('\n')}\n\nExit codes:\n${EXIT_MEANINGS.map(
      ([code, meaning]) => `  ${String(code).padEnd(3)}  ${meaning}`,
    ).join('\n')}`,
  );
  for (const add of COMMANDS) add(program, start);
  return program;
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { readonly version: string }).version;
}
