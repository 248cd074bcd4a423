/** `key add|remove|rotate|list NAME`: the keys that open a replica. */
import type { Command } from 'commander';
import { addKey, BlockferryError, type KeyInfo, type KeySource, listKeys, removeKey, rotateKey } from '../index.ts';
import type { AddCommand, Start } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { table } from './format.ts';
import { withExample } from './options.ts';
import {
  type FromOptions,
  type KeyOptions,
  keySources,
  referenceOf,
  sessionOf,
  withFromOptions,
  withKeyOptions,
} from './session.ts';

export const addKeyCommands: AddCommand = (program, start) => {
  const key = program
    .command('key')
    .summary('add, remove, rotate and list the keys of a replica')
    .description('The keys that open a replica. Each is one more way in; whoever loses all of them loses the replica.');
  addAdd(key, start);
  addRemove(key, start);
  addRotate(key, start);
  addList(key, start);
};

function addAdd(key: Command, start: Start): void {
  const command = key
    .command('add')
    .summary('let one more key open the replica')
    .description('Lets one more key open the replica. Nothing that is stored is written again.')
    .argument('<name>', 'name of the item');
  withExample(withKeyOptions(command), 'blockferry key add web1 --certificate recovery.pem');
  command.action(async (name: string, options: KeyOptions) => {
    await start(command, async (context) => {
      const id = await addKey(sessionOf(context), name, oneKey(options));
      await context.output.result({ type: 'key-added', item: name, id }, () => `${name}: key ${id} added`);
      return EXIT.done;
    });
  });
}

function oneKey(options: KeyOptions): KeySource {
  const [source, ...more] = keySources(options);
  if (source && more.length === 0) return source;
  throw new BlockferryError('USAGE', source ? 'keys are added one at a time' : 'no key is named', {
    hint: 'name one with --key-file, --passphrase-file or --certificate',
  });
}

function addRemove(key: Command, start: Start): void {
  const command = key
    .command('remove')
    .summary('let a key open the replica no more')
    .description(
      'Lets a key open the replica no more. Whoever has that key and an old copy of the keyring can still read what was ' +
        'stored until now; rotate shuts them out of what is stored from now on.',
    )
    .argument('<name>', 'name of the item')
    .argument('<id>', 'id of the key, as list shows it');
  withExample(command, 'blockferry key remove web1 k2');
  command.action(async (name: string, id: string) => {
    await start(command, async (context) => {
      await removeKey(sessionOf(context), name, id);
      await context.output.result({ type: 'key-removed', item: name, id }, () => `${name}: key ${id} removed`);
      return EXIT.done;
    });
  });
}

function addRotate(key: Command, start: Start): void {
  const command = key
    .command('rotate')
    .summary('seal what is stored from now on under a new data key')
    .description('Starts a new data key: what is stored from now on is sealed under it. Nothing is written again.')
    .argument('<name>', 'name of the item');
  withExample(command, 'blockferry key rotate web1');
  command.action(async (name: string) => {
    await start(command, async (context) => {
      const epoch = await rotateKey(sessionOf(context), name);
      await context.output.result(
        { type: 'key-rotated', item: name, epoch },
        () => `${name}: data key of epoch ${epoch}`,
      );
      return EXIT.done;
    });
  });
}

function addList(key: Command, start: Start): void {
  const command = key
    .command('list')
    .summary('the keys that open the replica')
    .description('Lists the keys that open the replica, by kind and id; never the keys themselves.')
    .argument('<name>', 'name of the item');
  withExample(withFromOptions(command), 'blockferry key list web1');
  command.action(async (name: string, options: FromOptions) => {
    await start(command, async (context) => {
      const keys = await listKeys(sessionOf(context), referenceOf(name, options));
      const rows = table(keys.map(({ id, type, thumbprint }: KeyInfo) => [id, type, thumbprint ?? '']));
      for (const [index, { id, type: kind, thumbprint }] of keys.entries()) {
        await context.output.result(
          { type: 'key', id, kind, ...(thumbprint === undefined ? {} : { thumbprint }) },
          () => rows[index] ?? '',
        );
      }
      return EXIT.done;
    });
  });
}
