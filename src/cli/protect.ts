/** `protect NAME DISK… --to URL`: begins to replicate an item. */
import type { Option } from 'commander';
import { type Compression, type FingerprintAlgorithm, type Layout, mirror, protect } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { mirrorLines } from './mirror.ts';
import { choice, chunkSizeValue, fingerprintOption, repeated, withExample } from './options.ts';
import { syncLines } from './reports.ts';
import {
  type KeyOptions,
  keySources,
  sessionOf,
  type TransferOptions,
  withKeyOptions,
  withTransferOptions,
} from './session.ts';

interface Options extends KeyOptions, TransferOptions {
  readonly to: string;
  readonly also?: readonly string[];
  readonly layout?: Layout;
  readonly chunkSize?: number;
  readonly fingerprint?: FingerprintAlgorithm;
  readonly compression?: Compression;
}

export const addProtect: AddCommand = (program, start) => {
  const command = program
    .command('protect')
    .summary('begin to replicate the disks of a machine')
    .description(
      'Checks the prerequisites, makes the replica and does the initial replication. When it was interrupted, the same ' +
        'command goes on where it stopped. Without a key option a key file is made in the home directory; keep a copy ' +
        'elsewhere, since whoever loses every key of a replica loses the replica.',
    )
    .argument('<name>', 'name of the item')
    .argument('<disks...>', 'VHD, VHDX or raw files')
    .requiredOption(
      '--to <url>',
      'where the replica lives: https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX or file:///DIR',
    )
    .option('--also <url>', 'a further store that follows the one before it, may be repeated', repeated)
    .addOption(layoutOption())
    .option('--chunk-size <size>', 'a power of two from 64KiB to 4MiB (default: 256KiB)', chunkSizeValue)
    .addOption(fingerprintOption('--fingerprint'))
    .addOption(choice('--compression', 'of each chunk by itself (default: lz4)', ['lz4', 'zstd', 'none']));
  withTransferOptions(withKeyOptions(command));
  withExample(
    command,
    'blockferry protect web1 web1.vhdx data.vhdx --to file:///srv/replicas/web1 --key-file web1.key',
  );
  command.action(async (name: string, disks: string[], options: Options) => {
    await start(command, async (context) => {
      const { to: url, also, layout, chunkSize, fingerprint, compression } = options;
      const session = sessionOf(context, options);
      const report = await protect(session, {
        name,
        disks,
        url,
        keys: keySources(options),
        ...(also === undefined ? {} : { also }),
        ...(layout === undefined ? {} : { layout }),
        ...(chunkSize === undefined ? {} : { chunkBytes: chunkSize }),
        ...(fingerprint === undefined ? {} : { fingerprint }),
        ...(compression === undefined ? {} : { compression }),
      });
      await context.output.result({ type: 'sync', ...report }, () => syncLines(report));
      for (const carried of also === undefined ? [] : await mirror(session, { name })) {
        await context.output.result({ type: 'mirrored', ...carried }, () => mirrorLines(carried));
      }
      return EXIT.done;
    });
  });
};

function layoutOption(): Option {
  return choice('--layout', 'sealed: encrypted; raw: a fixed VHD that a cloud machine boots from (default: sealed)', [
    'sealed',
    'raw',
  ]);
}
