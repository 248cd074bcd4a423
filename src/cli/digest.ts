/** `digest DISK`: fingerprints of the chunks and the SHA-256 of the content. */
import { digestDisk, type FingerprintAlgorithm, openDisk } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import {
  chunkSizeValue,
  type DiskOptions,
  fingerprintOption,
  openOptions,
  withDiskOptions,
  withExample,
} from './options.ts';

interface Options extends DiskOptions {
  readonly algorithm?: FingerprintAlgorithm;
  readonly chunkSize?: number;
}

export const addDigest: AddCommand = (program, start) => {
  const command = program
    .command('digest')
    .summary('fingerprints of the chunks and the SHA-256 of the content of a disk')
    .description(
      'Prints the fingerprint of each chunk and, last, the SHA-256 of the whole guest-visible content. ' +
        'These are plain hashes, as xxhsum and sha256sum print them; those inside a replica are keyed and differ.',
    )
    .argument('<disk>', 'VHD, VHDX or raw file')
    .addOption(fingerprintOption('--algorithm'))
    .option('--chunk-size <size>', 'a power of two from 64KiB to 4MiB (default: 256KiB)', chunkSizeValue);
  withExample(withDiskOptions(command), 'blockferry digest web1.vhdx --json | tail -n 1');
  command.action(async (path: string, options: Options) => {
    await start(command, async (context) => {
      const { output, progress, signal } = context;
      const disk = await openDisk(path, openOptions(options, context));
      try {
        const records = digestDisk(disk, {
          signal,
          onProgress: (state) => progress.update({ title: 'digest', ...state }),
          ...(options.algorithm === undefined ? {} : { algorithm: options.algorithm }),
          ...(options.chunkSize === undefined ? {} : { chunkBytes: options.chunkSize }),
        });
        for await (const record of records) {
          if (output.stdout.closed) break;
          await output.result({ ...record }, () =>
            record.type === 'chunk'
              ? `${record.offset}\t${record.length}\t${record.fingerprint}`
              : `sha256 ${record.sha256}`,
          );
        }
      } finally {
        await disk.close();
      }
      return EXIT.done;
    });
  });
};
