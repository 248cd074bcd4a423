/** The numbers of a gateway for Prometheus; names and units are those of docs/agent.md. Of an agent that is none there are none. */
import type { Gauge, Registry } from 'prom-client';
import type { GatewayReplicaStatus } from '../../gateway/index.ts';
import type { AgentGatewayStatus } from './gateway-health.ts';
import type { AgentStatus } from './types.ts';

const LEVELS = { normal: 0, warning: 1, critical: 2 } as const;

interface GatewayMetric {
  readonly name: string;
  readonly help: string;
  readonly value: (gateway: AgentGatewayStatus) => number;
}

interface ReplicaMetric {
  readonly name: string;
  readonly help: string;
  readonly value: (replica: GatewayReplicaStatus, nowMs: number) => number;
}

const OF_GATEWAY: readonly GatewayMetric[] = [
  {
    name: 'blockferry_gateway_health_level',
    help: '0 normal, 1 warning, 2 critical.',
    value: ({ health }) => LEVELS[health.level],
  },
  {
    name: 'blockferry_gateway_cache_used_bytes',
    help: 'Bytes that the cache holds.',
    value: ({ cache }) => cache.usedBytes,
  },
  {
    name: 'blockferry_gateway_cache_limit_bytes',
    help: 'Bytes from which nothing new is begun.',
    value: ({ cache }) => cache.limitBytes,
  },
  {
    name: 'blockferry_gateway_cache_free_bytes',
    help: 'Free space of the volume of the cache.',
    value: ({ cache }) => cache.freeBytes,
  },
  {
    name: 'blockferry_gateway_denied_requests',
    help: 'Requests without a known token, or for a place that is not their client’s, since the start.',
    value: ({ denied }) => denied,
  },
];

const OF_REPLICA: readonly ReplicaMetric[] = [
  {
    name: 'blockferry_gateway_replica_queued_bytes',
    help: 'Bytes that wait for the store.',
    value: ({ queuedBytes }) => queuedBytes,
  },
  {
    name: 'blockferry_gateway_replica_waiting_points',
    help: 'Recovery points that are not at the store yet.',
    value: ({ points }) => points,
  },
  {
    name: 'blockferry_gateway_replica_oldest_seconds',
    help: 'How long the oldest write waits.',
    value: ({ oldestMs }, nowMs) => (oldestMs === undefined ? 0 : Math.max(0, nowMs - oldestMs) / 1000),
  },
  {
    name: 'blockferry_gateway_replica_failing',
    help: '1 while nothing gets through to the store.',
    value: ({ failure }) => (failure ? 1 : 0),
  },
  {
    name: 'blockferry_gateway_replica_refused',
    help: 'Queues that the store did not take, kept for a person.',
    value: ({ refused }) => refused.length,
  },
];

/** Adds them to a registry, to be taken when somebody asks. */
export function addGatewayMetrics(
  registry: Registry,
  gauge: typeof Gauge,
  status: () => AgentStatus,
  nowMs: () => number,
): void {
  for (const { name, help, value } of OF_GATEWAY) {
    new gauge({
      ...{ name, help, registers: [registry] },
      collect() {
        const { gateway } = status();
        if (gateway) this.set(value(gateway));
      },
    });
  }
  for (const { name, help, value } of OF_REPLICA) {
    new gauge({
      ...{ name, help, labelNames: ['place'], registers: [registry] },
      collect() {
        this.reset();
        for (const replica of status().gateway?.replicas ?? [])
          this.set({ place: replica.place }, value(replica, nowMs()));
      },
    });
  }
}
