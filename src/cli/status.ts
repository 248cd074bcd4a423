/** `status [NAME]`: how the items of this home are. */
import { type ItemStatus, status, type TrackerStatus } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { formatBytes, formatDuration, formatTime } from './format.ts';
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
      for (const item of items) await context.output.result({ type: 'status', ...item }, () => statusLines(item));
      if (items.length === 0) context.output.note(`no items in ${context.home}`);
      return EXIT.done;
    });
  });
};

function statusLines(item: ItemStatus): string[] {
  const lines = [`${item.item}: ${item.state}, ${item.health}`, `  replica:      ${item.url}`];
  if (item.layout !== undefined) {
    lines.push(`  layout:       ${item.layout}, generation ${item.generation ?? 0}, freshness ${item.freshness}`);
  }
  if (item.cause !== undefined) lines.push(`  cause:        ${item.cause}`);
  if (item.action !== undefined) lines.push(`  next step:    ${item.action}`);
  if (item.lastPointMs !== undefined) {
    const age = item.rpoMs === undefined ? '' : `, ${formatDuration(item.rpoMs)} ago`;
    lines.push(`  newest point: ${formatTime(item.lastPointMs)}${age}`);
  }
  if (item.backlog !== undefined && item.backlog.logs > 0) {
    lines.push(`  backlog:      ${item.backlog.logs} shipped logs to apply, ${formatBytes(item.backlog.bytes)}`);
  }
  if (item.syncProgress !== undefined) {
    lines.push(`  unfinished:   a sync, ${Math.floor(item.syncProgress * 100)} % done; resync goes on with it`);
  }
  if (item.tracking !== undefined) lines.push(...trackingLines(item.tracking));
  for (const { disk, path, virtualSizeBytes } of item.disks) {
    lines.push(
      `  ${disk}:           ${path ?? 'unknown path'}, ${virtualSizeBytes === undefined ? 'unknown size' : formatBytes(virtualSizeBytes)}`,
    );
  }
  return lines;
}

/** The tracker that runs: what its logs take, and when they will give way. */
function trackingLines({ mode, disks, logBytesPerSecond, halfFullInMs }: TrackerStatus): string[] {
  const bytes = disks.reduce((sum, { logBytes }) => sum + logBytes, 0);
  const forecast = halfFullInMs === undefined ? '' : `, half of a disk in ${formatDuration(halfFullInMs)}`;
  return [`  tracking:     ${mode}, logs ${formatBytes(bytes)}, ${formatBytes(logBytesPerSecond)}/s${forecast}`];
}
