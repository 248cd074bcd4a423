/** `status [NAME]`: how the items of this home are. A line each, and what is wrong; of one item that is named everything. */
import { type FurtherStore, type ItemStatus, status, type TrackerStatus } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { count, formatBytes, formatDuration, formatTime, table } from './format.ts';
import { withExample } from './options.ts';
import { sessionOf } from './session.ts';

export const addStatus: AddCommand = (program, start) => {
  const command = program
    .command('status')
    .summary('state and health of an item, or of all')
    .description(
      'Tells state, health with cause and next step, age of the newest recovery point, and what is unfinished.',
    )
    .argument('[name]', 'name of the item (default: all of this home)');
  withExample(command, 'blockferry status web1 --json');
  command.action(async (name: string | undefined) => {
    await start(command, async (context) => {
      const items = await status(sessionOf(context), name);
      const heads = table(items.map(headOf));
      for (const [i, item] of items.entries()) {
        await context.output.result({ type: 'status', ...item }, () =>
          name === undefined ? [heads[i]!, ...worstLines(item)] : [heads[i]!, ...everyLine(item), ...detailLines(item)],
        );
      }
      if (items.length === 0) context.output.note(`no items in ${context.home}`);
      return EXIT.done;
    });
  });
};

/** Name, state, health, age of the newest point: what a person looks for first. */
function headOf({ item, state, health, rpoMs }: ItemStatus): readonly string[] {
  const shown = health === 'normal' ? health : health.toUpperCase();
  return [item, state, shown, rpoMs === undefined ? 'no recovery point known' : `RPO ${formatDuration(rpoMs)}`];
}

/** The worst of what is wrong, and how much more there is. */
function worstLines({ item, cause, action, findings }: ItemStatus): string[] {
  if (cause === undefined || action === undefined) return [];
  const lines = [`  cause:        ${cause}`, `  next step:    ${action}`];
  const more = findings.length - 1;
  if (more > 0) lines.push(`  and:          ${count(more, 'more finding')}: blockferry status ${item}`);
  return lines;
}

function everyLine({ findings }: ItemStatus): string[] {
  return findings.flatMap(({ code, severity, cause, action }) => [
    `  ${`${severity}:`.padEnd(13)} ${code}`,
    `  cause:        ${cause}`,
    `  next step:    ${action}`,
  ]);
}

function detailLines(item: ItemStatus): string[] {
  const lines = [`  replica:      ${item.url}`];
  if (item.replicationState !== undefined) {
    lines.push(`  published:    state ${item.replicationState.code}, ${item.replicationState.name}`);
  }
  if (item.layout !== undefined) {
    lines.push(`  layout:       ${item.layout}, generation ${item.generation ?? 0}, freshness ${item.freshness}`);
  }
  if (item.lastPointMs !== undefined) {
    const age = item.rpoMs === undefined ? '' : `, ${formatDuration(item.rpoMs)} ago`;
    lines.push(`  newest point: ${formatTime(item.lastPointMs)}${age}`);
  }
  if (item.backlog !== undefined && item.backlog.logs > 0) {
    lines.push(`  backlog:      ${item.backlog.logs} shipped logs to apply, ${formatBytes(item.backlog.bytes)}`);
  }
  if (item.syncProgress !== undefined) {
    lines.push(`  unfinished:   a copy, ${Math.floor(item.syncProgress * 100)} % done`);
  }
  for (const store of item.also ?? []) lines.push(...storeLines(store));
  if (item.tracking !== undefined) lines.push(...trackingLines(item.tracking));
  for (const { disk, path, virtualSizeBytes } of item.disks) {
    lines.push(
      `  ${disk}:           ${path ?? 'unknown path'}, ${virtualSizeBytes === undefined ? 'unknown size' : formatBytes(virtualSizeBytes)}`,
    );
  }
  return lines;
}

/** A further store: its newest point, how far behind, or why it could not be looked at. */
function storeLines({ url, pointId, behindMs, message }: FurtherStore): string[] {
  const lines = [`  also:         ${url}`];
  if (message !== undefined) lines.push(`                ${message}`);
  else if (pointId === undefined) lines.push('                no recovery point yet: blockferry mirror');
  else if (behindMs === undefined) lines.push(`                newest point ${pointId}`);
  else
    lines.push(
      `                newest point ${pointId}, ${behindMs === 0 ? 'current' : `${formatDuration(behindMs)} behind`}`,
    );
  return lines;
}

/** The tracker that runs: what its logs take, and when they will give way. */
function trackingLines({ mode, disks, logBytesPerSecond, halfFullInMs }: TrackerStatus): string[] {
  const bytes = disks.reduce((sum, { logBytes }) => sum + logBytes, 0);
  const forecast = halfFullInMs === undefined ? '' : `, half of a disk in ${formatDuration(halfFullInMs)}`;
  return [`  tracking:     ${mode}, logs ${formatBytes(bytes)}, ${formatBytes(logBytesPerSecond)}/s${forecast}`];
}
