/**
 * What an operator asks an agent to do with one of its machines: the verbs that change sides (docs/life.md), with the requests and
 * reports of the plain ones. How each is read from the socket, refused, and run.
 */
import { isAbsolute } from 'node:path';
import type { JsonReader } from '../../replica/index.ts';
import type { Verb } from '../life/index.ts';
import { cancel, commit, failback, failover, failoverPlanned, reverse } from '../sides/index.ts';
import type {
  CancelReport,
  CancelRequest,
  CommitReport,
  CommitRequest,
  FailbackReport,
  FailbackRequest,
  FailoverReport,
  FailoverRequest,
  ItemEvent,
  PlannedReport,
  PlannedRequest,
  ReverseReport,
  Session,
} from '../types.ts';
import type { MachineConfig, OperatorVerb } from './types.ts';

/** The replica is that of the machine; a failover to where its owner has stopped is `failover-planned`. */
export interface OperatorRequests {
  readonly failover: Omit<FailoverRequest, 'planned'>;
  readonly 'failover-planned': PlannedRequest;
  /** What is not said is as the machine's configuration says. */
  readonly failback: Partial<FailbackRequest>;
  readonly commit: CommitRequest;
  readonly cancel: CancelRequest;
  readonly reverse: object;
}

export interface OperatorReports {
  readonly failover: FailoverReport;
  readonly 'failover-planned': PlannedReport;
  readonly failback: FailbackReport;
  readonly commit: CommitReport;
  readonly cancel: CancelReport;
  readonly reverse: ReverseReport;
}

export interface OperateOptions {
  readonly signal?: AbortSignal;
  /** What it has to say meanwhile. */
  readonly onEvent?: (event: ItemEvent) => void;
}

interface Operation<V extends OperatorVerb> {
  /** @throws USAGE */
  readonly read: (json: JsonReader) => OperatorRequests[V];
  /** What it is in the machine's life; undefined: it is possible in every state. */
  readonly asks: (request: OperatorRequests[V]) => Verb | undefined;
  readonly run: (
    session: Session,
    name: string,
    request: OperatorRequests[V],
    config: MachineConfig,
  ) => Promise<OperatorReports[V]>;
}

const FORMATS = ['vhdx', 'vhd', 'raw'] as const;
const PATH_CHARACTERS_MAX = 4096;

export const OPERATIONS: { readonly [V in OperatorVerb]: Operation<V> } = {
  failover: {
    read: (json) => ({
      point: json.optional('point')?.string(128) ?? 'latest',
      outDirectory: directory(json.field('outDirectory')),
      ...formatOf(json),
      ...(isSet(json, 'test') ? { test: true } : {}),
    }),
    asks: ({ test }) => (test ? 'failover-test' : 'failover'),
    run: (session, name, request) => failover(session, { name }, request),
  },
  'failover-planned': {
    read: (json) => ({ ...outOf(json), ...formatOf(json) }),
    asks: () => 'failover-planned',
    run: failoverPlanned,
  },
  failback: {
    read: readFailback,
    asks: () => 'failback',
    run: (session, name, request, config) => failback(session, name, failbackRequest(request, config)),
  },
  commit: {
    read: (json) => ({
      ...(isSet(json, 'discardNewer') ? { discardNewer: true } : {}),
      ...(isSet(json, 'end') ? { end: true } : {}),
    }),
    asks: ({ end }) => (end ? 'end' : 'commit'),
    run: commit,
  },
  cancel: {
    read: (json) => (isSet(json, 'test') ? { test: true } : {}),
    asks: ({ test }) => (test ? undefined : 'cancel'),
    run: cancel,
  },
  reverse: { read: () => ({}), asks: () => 'reverse', run: (session, name) => reverse(session, name) },
};

function readFailback(json: JsonReader): Partial<FailbackRequest> {
  const mode = json.optional('mode')?.oneOf(['delta', 'full']);
  const retention = json.optional('retention');
  return {
    ...(mode === undefined ? {} : { mode }),
    ...outOf(json),
    ...formatOf(json),
    ...(retention ? { retention: directory(retention) } : {}),
  };
}

/** The folders of the configuration are those of the mode that it names. */
function failbackRequest(asked: Partial<FailbackRequest>, { failback: known }: MachineConfig): FailbackRequest {
  const mode = asked.mode ?? known?.mode ?? 'delta';
  const isKnown = known?.mode === mode;
  return {
    ...(isKnown && known.out !== undefined ? { outDirectory: known.out } : {}),
    ...(known?.retention !== undefined && mode === 'delta' ? { retention: known.retention } : {}),
    ...asked,
    mode,
  };
}

function isSet(json: JsonReader, key: string): boolean {
  return json.optional(key)?.boolean() ?? false;
}

function formatOf(json: JsonReader): { readonly format?: (typeof FORMATS)[number] } {
  const format = json.optional('format')?.oneOf(FORMATS);
  return format === undefined ? {} : { format };
}

function outOf(json: JsonReader): { readonly outDirectory?: string } {
  const out = json.optional('outDirectory');
  return out ? { outDirectory: directory(out) } : {};
}

/** The agent has another working directory than who asks. */
function directory(json: JsonReader): string {
  const path = json.string(PATH_CHARACTERS_MAX);
  return isAbsolute(path) ? path : json.fail('is an absolute path');
}
