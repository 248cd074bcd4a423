/**
 * The agent's numbers for Prometheus, on an HTTP server of the loopback. They are taken from the status when somebody asks; the
 * names and units are those of docs/agent.md.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { BlockferryError } from '../../errors.ts';
import { addGatewayMetrics } from './metrics-gateway.ts';
import type { AgentStatus, MachineStatus } from './types.ts';

const HEALTH_LEVELS = { normal: 0, warning: 1, critical: 2 } as const;
/** A scrape is one short request. */
const REQUEST_MS_MAX = 10_000;
const CONNECTIONS_MAX = 16;

type Labels = Readonly<Record<string, string>>;
type Samples = readonly (readonly [Labels, number])[];

interface Metric {
  readonly name: string;
  readonly help: string;
  readonly kind: 'gauge' | 'counter';
  readonly label?: string;
  readonly samples: (machine: MachineStatus) => Samples;
}

const one = (value: number | undefined): Samples => (value === undefined ? [] : [[{}, value]]);
const seconds = (ms: number | undefined): number | undefined => (ms === undefined ? undefined : ms / 1000);

const METRICS: readonly Metric[] = [
  {
    name: 'blockferry_machine_state_code',
    help: 'Number of the state (docs/health.md), -1 where it has none.',
    kind: 'gauge',
    samples: ({ stateCode }) => one(stateCode ?? -1),
  },
  {
    name: 'blockferry_machine_health_level',
    help: '0 normal, 1 warning, 2 critical.',
    kind: 'gauge',
    samples: ({ health }) => one(HEALTH_LEVELS[health.level]),
  },
  {
    name: 'blockferry_machine_rpo_seconds',
    help: 'Age of the newest recovery point.',
    kind: 'gauge',
    samples: ({ rpoMs }) => one(seconds(rpoMs)),
  },
  {
    name: 'blockferry_machine_recovery_points',
    help: 'Recovery points that can be restored.',
    kind: 'gauge',
    samples: ({ points }) => one(points),
  },
  {
    name: 'blockferry_machine_backlog_bytes',
    help: 'Written by the machine and not shipped yet.',
    kind: 'gauge',
    samples: ({ backlogBytes }) => one(backlogBytes),
  },
  {
    name: 'blockferry_machine_outstanding_logs',
    help: 'Shipped logs that are not in the base yet.',
    kind: 'gauge',
    samples: ({ outstandingLogs }) => one(outstandingLogs),
  },
  {
    name: 'blockferry_machine_cycles_total',
    help: 'Cycles that were done, fell out, or failed.',
    kind: 'counter',
    label: 'result',
    samples: ({ totals: { done, missed, failed } }) => [
      [{ result: 'done' }, done],
      [{ result: 'missed' }, missed],
      [{ result: 'failed' }, failed],
    ],
  },
  {
    name: 'blockferry_machine_sent_bytes_total',
    help: 'Bytes handed to the store.',
    kind: 'counter',
    samples: ({ totals }) => one(totals.sentBytes),
  },
  {
    name: 'blockferry_machine_failed_attempts',
    help: 'Failures in a row.',
    kind: 'gauge',
    samples: ({ failure }) => one(failure?.count ?? 0),
  },
  {
    name: 'blockferry_machine_waits_for_person',
    help: '1 if nothing is tried until somebody helps.',
    kind: 'gauge',
    samples: ({ failure }) => one(failure && !failure.recoverable ? 1 : 0),
  },
  {
    name: 'blockferry_machine_last_duration_seconds',
    help: 'How long the last operation of each verb took.',
    kind: 'gauge',
    label: 'verb',
    samples: ({ lastMs }) => Object.entries(lastMs).map(([verb, ms]) => [{ verb }, ms / 1000]),
  },
  {
    name: 'blockferry_machine_free_space_bytes',
    help: 'Free space of the fullest volume that replication writes to.',
    kind: 'gauge',
    samples: ({ space }) => one(space?.freeBytes),
  },
  {
    name: 'blockferry_machine_store_behind_seconds',
    help: 'How much older the newest point of a further store is than that of the first.',
    kind: 'gauge',
    label: 'store',
    samples: ({ also = [] }) =>
      also.flatMap(({ url, behindMs }): Samples => (behindMs === undefined ? [] : [[{ store: url }, behindMs / 1000]])),
  },
  {
    name: 'blockferry_machine_store_failed_attempts',
    help: 'Failures in a row of carrying to a further store.',
    kind: 'gauge',
    label: 'store',
    samples: ({ also = [] }) => also.map(({ url, trouble }) => [{ store: url }, trouble?.count ?? 0]),
  },
  {
    name: 'blockferry_machine_suspended',
    help: '1 while an operator has it paused.',
    kind: 'gauge',
    samples: ({ suspendedSinceMs }) => one(suspendedSinceMs === undefined ? 0 : 1),
  },
];

export class MetricsServer {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Listens on an address of the loopback. @throws USAGE if it is taken */
  static async listen(
    address: { readonly host: string; readonly port: number },
    status: () => AgentStatus,
    nowMs: () => number,
  ): Promise<MetricsServer> {
    const registry = await registryOf(status, nowMs);
    const server = createServer((request, response) => void answer(registry, request, response));
    server.requestTimeout = REQUEST_MS_MAX;
    server.headersTimeout = REQUEST_MS_MAX;
    server.maxConnections = CONNECTIONS_MAX;
    await new Promise<void>((resolve, reject) => {
      const onError = (cause: Error): void => {
        const message = `metrics cannot be served on ${address.host}:${address.port}: ${cause.message}`;
        reject(new BlockferryError('USAGE', message, { cause, hint: 'choose another port for "metrics"' }));
      };
      server.once('error', onError);
      server.listen(address.port, address.host, () => {
        server.off('error', onError);
        resolve();
      });
    });
    return new MetricsServer(server);
  }

  /** Where it is to be had. */
  get url(): string {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') return '';
    const host = address.family === 'IPv6' ? `[${address.address}]` : address.address;
    return `http://${host}:${address.port}/metrics`;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }
}

type Registry = InstanceType<typeof import('prom-client').Registry>;

async function registryOf(status: () => AgentStatus, nowMs: () => number): Promise<Registry> {
  const { collectDefaultMetrics, Counter, Gauge, Registry } = await import('prom-client');
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  for (const { name, help, kind, label, samples } of METRICS) {
    const labelNames = ['machine', ...(label === undefined ? [] : [label])];
    const metric = new (kind === 'gauge' ? Gauge : Counter)({
      ...{ name, help, labelNames, registers: [registry] },
      // Machines come and go: what is not there any more must not be told for ever.
      collect() {
        metric.reset();
        for (const machine of status().machines) {
          for (const [labels, value] of samples(machine)) metric.inc({ machine: machine.name, ...labels }, value);
        }
      },
    });
  }
  new Gauge({
    name: 'blockferry_agent_machines',
    help: 'Machines of the configuration.',
    registers: [registry],
    collect() {
      this.set(status().machines.length);
    },
  });
  if (status().gateway) addGatewayMetrics(registry, Gauge, status, nowMs);
  return registry;
}

async function answer(registry: Registry, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const isKnown = request.url === '/metrics' && (request.method === 'GET' || request.method === 'HEAD');
  if (!isKnown) return void response.writeHead(404).end('see /metrics\n');
  try {
    const text = await registry.metrics();
    response.writeHead(200, { 'content-type': registry.contentType }).end(text);
  } catch {
    response.writeHead(500).end();
  }
}
