/** From options to what the item-level operations take: the session, the reference of a replica, its keys. */
import type { Command } from 'commander';
import { BlockferryError, type ItemEvent, type KeySource, type ReplicaReference, type Session } from '../index.ts';
import type { Context } from './context.ts';
import { integerValue, repeated, sizeValue } from './options.ts';

/** Options of every command that moves data. */
export interface TransferOptions {
  readonly workers?: number;
  readonly lanes?: number;
  readonly bandwidth?: number;
}

/** Adds `--workers`, `--lanes` and `--bandwidth`. */
export function withTransferOptions(command: Command): Command {
  return command
    .option('--workers <n>', 'worker threads (default: one per processor, at most 8)', integerValue(1, 256))
    .option('--lanes <n>', 'requests to the store at a time, 1 to 32 (default: 8)', integerValue(1, 32))
    .option('--bandwidth <size>', 'at most so many bytes a second, for example 20MiB', sizeValue);
}

/** The options that name keys; each may be repeated. */
export interface KeyOptions {
  readonly keyFile?: readonly string[];
  readonly passphraseFile?: readonly string[];
  readonly certificate?: readonly string[];
}

/** Adds `--key-file`, `--passphrase-file` and `--certificate`. */
export function withKeyOptions(command: Command): Command {
  return command
    .option('--key-file <file>', 'key file, as keygen makes it', repeated)
    .option('--passphrase-file <file>', 'file with a passphrase in its first line', repeated)
    .option('--certificate <pem>', 'X.509 certificate; to open a replica, with its private key', repeated);
}

/** The keys that were named. */
export function keySources({ keyFile = [], passphraseFile = [], certificate = [] }: KeyOptions): readonly KeySource[] {
  return [
    ...keyFile.map((path): KeySource => ({ type: 'key-file', path })),
    ...passphraseFile.map((path): KeySource => ({ type: 'passphrase-file', path })),
    ...certificate.map((path): KeySource => ({ type: 'certificate', path })),
  ];
}

/** A replica named by its URL, where no local state exists. */
export interface FromOptions extends KeyOptions {
  readonly from?: string;
}

/** Adds `--from` and the options of its keys. */
export function withFromOptions(command: Command): Command {
  return withKeyOptions(
    command.option('--from <url>', 'find the replica by its URL, without local state; needs one of its keys'),
  );
}

/** The replica that the options name. @throws USAGE if keys are named without a URL, or a URL without keys */
export function referenceOf(name: string, options: FromOptions): ReplicaReference {
  const keys = keySources(options);
  if (options.from === undefined) {
    if (keys.length === 0) return { name };
    throw new BlockferryError('USAGE', 'a key is named without --from', {
      hint: 'an item with local state knows its key; add --from URL to open the replica without local state',
    });
  }
  if (keys.length > 0) return { name, url: options.from, keys };
  throw new BlockferryError('USAGE', 'a replica that is found by its URL needs a key', {
    hint: 'add --key-file, --passphrase-file or --certificate',
  });
}

/** What the operations run with. Credentials are read from the environment here and nowhere below. */
export function sessionOf(context: Context, options: TransferOptions = {}): Session {
  const connectionString = process.env['AZURE_STORAGE_CONNECTION_STRING'];
  const tokenFile = process.env['BLOCKFERRY_GATEWAY_TOKEN_FILE'];
  const caFile = process.env['BLOCKFERRY_GATEWAY_CA'];
  const { workers, lanes, bandwidth } = options;
  return {
    ports: context.ports,
    home: context.home,
    environment: {
      ...(connectionString ? { connectionString } : {}),
      ...(tokenFile ? { gateway: { tokenFile, ...(caFile ? { caFile } : {}) } } : {}),
    },
    signal: context.signal,
    onEvent: (event) => tellItemEvent(event, context),
    ...(workers === undefined ? {} : { workers }),
    ...(lanes === undefined ? {} : { lanes }),
    ...(bandwidth === undefined ? {} : { bandwidthBytesPerSecond: bandwidth }),
  };
}

/** What an operation has to say meanwhile, as every command shows it. */
export function tellItemEvent(event: ItemEvent, { output, progress }: Context): void {
  switch (event.type) {
    case 'progress': {
      const { phase, disk, doneBytes, totalBytes, transferredBytes } = event;
      progress.update({ title: `${phase} ${disk}`, doneBytes, totalBytes, transferredBytes });
      return;
    }
    case 'notice':
      progress.clear();
      output.note(event.message);
      return;
    case 'committed':
      progress.clear();
      output.detail(`recovery point ${event.pointId} committed, generation ${event.generation}`);
      return;
  }
}
