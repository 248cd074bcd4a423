/** `verify NAME`: whether a replica can be restored. */
import { formatSize, type VerifyReport, verify } from '../index.ts';
import type { AddCommand } from './context.ts';
import { exitCodeOfVerify } from './exit-codes.ts';
import { count } from './format.ts';
import { percentValue, withExample } from './options.ts';
import {
  type FromOptions,
  referenceOf,
  sessionOf,
  type TransferOptions,
  withFromOptions,
  withTransferOptions,
} from './session.ts';

interface Options extends FromOptions, TransferOptions {
  readonly subset?: number;
  readonly source?: true;
}

export const addVerify: AddCommand = (program, start) => {
  const command = program
    .command('verify')
    .summary('open every slot of the newest recovery point; exit 8 if one is damaged')
    .description(
      'Opens every slot and every shipped log of the newest recovery point and checks them. With --source the live disks are compared too. ' +
        'Exit 0: whole, 3: whole but the live disks differ, 8: damaged.',
    )
    .argument('<name>', 'name of the item')
    .option('--subset <share>', 'open a random share of the slots only, for example 5%', percentValue)
    .option('--source', 'compare with the live disks as well');
  withExample(withTransferOptions(withFromOptions(command)), 'blockferry verify web1 --subset 10%');
  command.action(async (name: string, options: Options) => {
    await start(command, async (context) => {
      const { subset, source } = options;
      const { damage, damagedLogs, ...report } = await verify(sessionOf(context, options), referenceOf(name, options), {
        ...(subset === undefined ? {} : { subsetPercent: subset }),
        ...(source === undefined ? {} : { source }),
      });
      for (const { disk, chunk, message } of damage) {
        await context.output.result(
          { type: 'damage', disk, chunk, message },
          () => `${disk}: chunk ${chunk}: ${message}`,
        );
      }
      for (const { log, message } of damagedLogs) {
        await context.output.result({ type: 'damage', log, message }, () => `log ${log}: ${message}`);
      }
      const faults = damage.length + damagedLogs.length;
      await context.output.result({ type: 'verify', ...report, damage: faults }, () =>
        verifyLine(report, faults, source === true),
      );
      return exitCodeOfVerify(faults, report.sourceDifferences);
    });
  });
};

function verifyLine(report: Omit<VerifyReport, 'damage' | 'damagedLogs'>, damaged: number, source: boolean): string {
  const { item, pointId, chunksOpened, logsOpened, bytesRead, sourceDifferences, freshness } = report;
  const logs = logsOpened === 0 ? '' : ` and ${count(logsOpened, 'log')}`;
  const parts = [
    `${item}: recovery point ${pointId}: ${damaged === 0 ? 'whole' : `${count(damaged, 'fault')}`}`,
    `${count(chunksOpened, 'chunk')}${logs} opened, ${formatSize(bytesRead)} read`,
  ];
  if (source) parts.push(`${count(sourceDifferences, 'chunk')} differ from the live disks`);
  if (freshness === 'not-proven') parts.push('freshness not proven');
  return parts.join('; ');
}
