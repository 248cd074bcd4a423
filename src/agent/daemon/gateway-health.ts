/** What is wrong with a gateway: causes with their numbers, worst first, and the operator's next step. Thresholds as published. */
import { formatSize } from '../../bytes.ts';
import type { GatewayReplicaStatus, GatewayStatus } from '../../gateway/index.ts';
import { MINUTE_MS } from '../policy/durations.ts';

export type GatewayReasonCode =
  | 'GATEWAY_REFUSED'
  | 'GATEWAY_STORE_AWAY'
  | 'GATEWAY_BACKLOG'
  | 'GATEWAY_SPACE'
  | 'GATEWAY_CACHE_FULL';

export interface GatewayFinding {
  readonly code: GatewayReasonCode;
  readonly severity: 'warning' | 'critical';
  readonly cause: string;
  /** The operator's next step. */
  readonly action: string;
}

/** The gateway that an agent is, as it was looked at last. */
export interface AgentGatewayStatus extends GatewayStatus {
  /** When that was. */
  readonly lookedMs: number;
  readonly health: { readonly level: 'normal' | 'warning' | 'critical'; readonly findings: readonly GatewayFinding[] };
}

/** A store that is away for so long is no hiccup. */
const AWAY_CRITICAL_MS: number = 15 * MINUTE_MS;

type Health = AgentGatewayStatus['health'];

export function gatewayHealth({ cache, replicas }: GatewayStatus, nowMs: number): Health {
  const found = [...cacheFindings(cache), ...replicas.flatMap((replica) => replicaFindings(replica, nowMs))];
  const findings = [
    ...found.filter(({ severity }) => severity === 'critical'),
    ...found.filter(({ severity }) => severity === 'warning'),
  ];
  return { level: findings[0]?.severity ?? 'normal', findings };
}

function cacheFindings(cache: GatewayStatus['cache']): readonly GatewayFinding[] {
  const { directory, usedBytes, limitBytes, lowSpace, freeBytes, totalBytes, verdict } = cache;
  const findings: GatewayFinding[] = [];
  if (verdict !== 'ok') {
    const share = Math.floor((freeBytes / totalBytes) * 100);
    const stops = verdict === 'stop' && lowSpace === 'act' ? '; nothing is taken in' : '';
    findings.push({
      code: 'GATEWAY_SPACE',
      severity: verdict === 'low' ? 'warning' : 'critical',
      cause: `${share} % of the volume of ${directory} is free${stops}`,
      action: 'free space there, or give the cache a volume of its own',
    });
  }
  if (usedBytes >= limitBytes) {
    findings.push({
      code: 'GATEWAY_CACHE_FULL',
      severity: 'warning',
      cause: `the cache holds ${formatSize(usedBytes)} of ${formatSize(limitBytes)}: nothing new is begun`,
      action: 'see why it does not drain, or raise "limit" of the cache',
    });
  }
  return findings;
}

function replicaFindings(replica: GatewayReplicaStatus, nowMs: number): readonly GatewayFinding[] {
  const { place, refused, failure, upload, points, oldestMs, movedMs } = replica;
  const findings: GatewayFinding[] = [];
  if (refused.length > 0) {
    findings.push({
      code: 'GATEWAY_REFUSED',
      severity: 'critical',
      cause: `${place}: writes that were answered for were not taken by the store; they are kept in ${refused.join(', ')}`,
      action:
        'see on which side the machine runs; its own logs are still there. Remove the directory when nobody needs it',
    });
  }
  // Also of a queue of which nothing fails and nothing moves: a line without bandwidth, a call that never ends.
  const stillMs = oldestMs === undefined ? 0 : nowMs - Math.max(oldestMs, movedMs ?? oldestMs);
  const failingMs = failure ? nowMs - failure.sinceMs : 0;
  const isCritical = Math.max(stillMs, failingMs) >= AWAY_CRITICAL_MS;
  if (failure || isCritical) {
    const minutes = Math.floor(Math.max(stillMs, failingMs) / MINUTE_MS);
    findings.push({
      code: 'GATEWAY_STORE_AWAY',
      severity: isCritical ? 'critical' : 'warning',
      cause: `${place}: ${points} points wait since ${minutes} min: ${failure?.message ?? 'nothing gets through'}`,
      action: 'mend the way to the store or its credentials; what waits is sent when it is back',
    });
  }
  if (upload && upload.level !== 'ok') {
    findings.push({
      code: 'GATEWAY_BACKLOG',
      severity: upload.level,
      cause: `${place}: what waits takes ${Math.ceil(upload.minutes)} minutes to upload`,
      action: 'give the gateway more bandwidth or lanes, or fewer machines',
    });
  }
  return findings;
}
