/**
 * What a machine remembers over restarts: how it reads from a file, and how it changes. Nothing here says what the replica
 * holds: that is asked of the replica.
 */
import { type BlockferryError, ERROR_CODES, type ErrorCode } from '../../errors.ts';
import { JsonReader } from '../../replica/index.ts';
import { isRecoverable, remedyOf } from '../life/index.ts';
import { CycleStatistics, nextAttempt } from '../policy/index.ts';
import { AGENT_VERBS, type AgentVerb, type Failure, type MachineRecord } from './types.ts';

const COUNT_MAX = Number.MAX_SAFE_INTEGER;
/** A message is for people; one that carries a page of output is cut. */
const MESSAGE_CHARACTERS_MAX = 4096;

/** A machine that nothing is known of yet. */
export function emptyRecord(zone: string, nowMs: number): MachineRecord {
  return {
    totals: { done: 0, missed: 0, failed: 0, sentBytes: 0 },
    lastMs: {},
    statistics: new CycleStatistics({ zone }, nowMs).toJson(),
  };
}

/** Verbs whose failure does not keep cycles from going on. */
export function isUpkeep(verb: AgentVerb): boolean {
  return verb === 'apply' || verb === 'prune';
}

/** The failure of a row of attempts, the last of which began at `beganMs`. */
export function nextFailure(
  before: Failure | undefined,
  verb: AgentVerb,
  error: BlockferryError,
  times: { readonly beganMs: number; readonly endedMs: number },
): Failure {
  const { code, message, hint } = error;
  return {
    verb,
    code,
    message: message.slice(0, MESSAGE_CHARACTERS_MAX),
    ...(hint === undefined ? {} : { hint }),
    firstMs: before?.firstMs ?? times.beganMs,
    lastMs: times.endedMs,
    count: (before?.count ?? 0) + 1,
    // Nothing but another resync helps one that the guest's writes outran.
    recoverable: isRecoverable(code) || (verb === 'resync' && remedyOf(code) === 'resync'),
  };
}

/** When it is tried again; undefined if it waits for a person. */
export function retryMs({ recoverable, firstMs, count, lastMs }: Failure): number | undefined {
  return recoverable ? nextAttempt(firstMs, count, lastMs) : undefined;
}

export function encodeRecord(record: MachineRecord): Uint8Array {
  return Buffer.from(`${JSON.stringify({ version: 1, ...record })}\n`);
}

/** @throws LOCAL_STATE */
export function decodeRecord(bytes: Uint8Array, source: string, zone: string): MachineRecord {
  const json = JsonReader.parse(bytes, source, 'LOCAL_STATE');
  json.field('version').integer(1, 1);
  const time = (key: string): number | undefined => json.optional(key)?.integer(0, COUNT_MAX);
  const failure = json.optional('failure');
  const upkeepFailure = json.optional('upkeepFailure');
  const lastCycle = json.optional('lastCycle');
  const totals = json.field('totals');
  const { statistics } = JSON.parse(Buffer.from(bytes).toString('utf8')) as { readonly statistics?: unknown };
  const total = (key: string): number => totals.field(key).integer(0, COUNT_MAX);
  return {
    ...defined({
      lastAppMs: time('lastAppMs'),
      lastCopyMs: time('lastCopyMs'),
      lastApplyMs: time('lastApplyMs'),
      lastPruneMs: time('lastPruneMs'),
      suspendedSinceMs: time('suspendedSinceMs'),
    }),
    ...(json.optional('resyncAsked')?.boolean() ? { resyncAsked: true } : {}),
    ...(lastCycle ? { lastCycle: readCycle(lastCycle) } : {}),
    ...(failure ? { failure: readFailure(failure) } : {}),
    ...(upkeepFailure ? { upkeepFailure: readFailure(upkeepFailure) } : {}),
    totals: { done: total('done'), missed: total('missed'), failed: total('failed'), sentBytes: total('sentBytes') },
    lastMs: readDurations(json.field('lastMs')),
    statistics: CycleStatistics.fromJson(statistics, source, { zone }).toJson(),
  };
}

function defined<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}

function readCycle(json: JsonReader): NonNullable<MachineRecord['lastCycle']> {
  return {
    startedMs: json.field('startedMs').integer(0, COUNT_MAX),
    endedMs: json.field('endedMs').integer(0, COUNT_MAX),
  };
}

function readDurations(json: JsonReader): MachineRecord['lastMs'] {
  return defined(Object.fromEntries(AGENT_VERBS.map((verb) => [verb, json.optional(verb)?.integer(0, COUNT_MAX)])));
}

function readFailure(json: JsonReader): Failure {
  const hint = json.optional('hint')?.string(MESSAGE_CHARACTERS_MAX);
  return {
    verb: json.field('verb').oneOf(AGENT_VERBS),
    code: json.field('code').oneOf(Object.keys(ERROR_CODES) as ErrorCode[]),
    message: json.field('message').string(MESSAGE_CHARACTERS_MAX),
    ...(hint === undefined ? {} : { hint }),
    firstMs: json.field('firstMs').integer(0, COUNT_MAX),
    lastMs: json.field('lastMs').integer(0, COUNT_MAX),
    count: json.field('count').integer(1, COUNT_MAX),
    recoverable: json.field('recoverable').boolean(),
  };
}
