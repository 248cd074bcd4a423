/** What `agent status` says of a gateway, for people. */
import type { AgentStatus } from '../index.ts';
import { count, formatBytes, formatDuration, formatTime } from './format.ts';

type Gateway = NonNullable<AgentStatus['gateway']>;

export function gatewayLines({ url, cache, denied, health, replicas }: Gateway): string[] {
  const lines = [`gateway at ${url}: ${health.level}`];
  for (const { cause, action } of health.findings) lines.push(`  cause:     ${cause}`, `  next step: ${action}`);
  const { usedBytes, limitBytes, freeBytes } = cache;
  lines.push(
    `  cache:     ${formatBytes(usedBytes)} of ${formatBytes(limitBytes)}, ${formatBytes(freeBytes)} free on its volume`,
  );
  if (denied > 0) lines.push(`  denied:    ${count(denied, 'request')}`);
  return [...lines, ...replicas.map(replicaLine)];
}

function replicaLine({ place, queuedBytes, points, oldestMs, upload }: Gateway['replicas'][number]): string {
  if (oldestMs === undefined) return `  ${place}: all of it is at the store`;
  const since = `since ${formatTime(oldestMs)}`;
  const forecast = upload ? `, ${formatDuration(upload.minutes * 60_000)} to upload` : '';
  return `  ${place}: ${count(points, 'point')} and ${formatBytes(queuedBytes)} wait ${since}${forecast}`;
}
