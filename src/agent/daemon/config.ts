/**
 * The configuration of the agent: from the text of a YAML file to machines with all defaults filled in. docs/agent.md is its
 * reference. Nothing of the outside is looked at: whether files exist is found out when they are needed.
 */
import { availableParallelism } from 'node:os';
import { dirname, isAbsolute, resolve } from 'node:path';
import { parseSize } from '../../bytes.ts';
import { checkChunkBytes } from '../../chunker/index.ts';
import { DISKS_PER_ITEM_MAX, KEY_SLOTS_MAX, MACHINES_MAX, SHIPPED_LOGS_MAX, STORES_MAX } from '../../limits.ts';
import { POINTS_KEPT } from '../../replica/index.ts';
import {
  type BandwidthProfile,
  type DailyWindow,
  isZone,
  RETENTION_DEFAULT,
  type RetentionPolicy,
  retentionFault,
  WEEKDAYS,
  type Weekday,
  windowFault,
} from '../policy/index.ts';
import { LANES_MAX } from '../transfer-limits.ts';
import type { KeySource } from '../types.ts';
import { readGateway } from './config-gateway.ts';
import { checkMembers, groupOf, type ReadGroup, readAppConsistent, readGroups } from './config-groups.ts';
import { type ConfigMap, type ConfigValue, readConfigText } from './config-reader.ts';
import {
  durationBetween,
  parseDuration,
  parseLoopback,
  parseMoment,
  parseName,
  parseStoreUrl,
} from './config-values.ts';
import { type AgentConfig, type FailbackConfig, LOG_LEVELS, type MachineConfig } from './types.ts';
import { PLACES_MIN } from './work-places.ts';

const AGENT_KEYS = [
  'home',
  'time-zone',
  'lanes',
  'at-once',
  'bandwidth',
  'metrics',
  'log',
  'connection-string-file',
  'gateway-token-file',
  'gateway-ca',
  'gateway',
  'defaults',
  'machines',
  'groups',
];
/** What every machine says for itself. */
const OWN_KEYS = ['name', 'disks', 'to'];
const KEY_KEYS = ['key-file', 'passphrase-file', 'certificate'] as const;
const SHARED_KEYS = [
  'layout',
  'chunk-size',
  'compression',
  ...KEY_KEYS,
  'every',
  'app-consistent',
  'first-copy-at',
  'resync',
  'retention',
  'apply',
  'lanes',
  'rpo-threshold',
  'low-space',
  'serve',
  'failback',
];
const SECRET = 'secrets do not stand in this file; name a file that holds it';
const SECRETS: Readonly<Record<string, string>> = {
  key: `${SECRET}: key-file`,
  passphrase: `${SECRET}: passphrase-file`,
  password: `${SECRET}: passphrase-file`,
  'connection-string': `${SECRET}: connection-string-file`,
  sas: `${SECRET}: connection-string-file`,
};

const EVERY_MS_DEFAULT = parseDuration('5min');
const APPLY_DEFAULT: MachineConfig['apply'] = { logs: 32, ageMs: parseDuration('1h') };
const RPO_MS_LEAST = parseDuration('15min');
const RPO_CYCLES = 3;
/** Fewer than this leave the line idle while they wait for answers of their stores. */
const AT_ONCE_LEAST = 4;

/** Where a file stands and which zone its times of day are in. */
interface Setting {
  readonly directory: string;
  readonly zone: string;
}

/** Reads a configuration. @throws CONFIG_INVALID with every mistake as `path:line:column: what` */
export function loadConfig(text: string, path: string): AgentConfig {
  const absolute = resolve(path);
  return readConfigText(text, path, (root) => readAgent(root.map(AGENT_KEYS, SECRETS), absolute));
}

function readAgent(map: ConfigMap, path: string): AgentConfig {
  const directory = dirname(path);
  const zone = map.get('time-zone')?.parse(parseZone) ?? localZone();
  const setting: Setting = { directory, zone };
  const groups = readGroups(map.get('groups'));
  const home = map.get('home')?.parse((text) => resolve(directory, text));
  const metrics = map.get('metrics')?.parse(parseLoopback);
  const file = (key: string): string | undefined => map.get(key)?.parse((text) => resolve(directory, text));
  const connectionStringFile = file('connection-string-file');
  const [gatewayTokenFile, gatewayCaFile] = [file('gateway-token-file'), file('gateway-ca')];
  const gateway = readGateway(map.get('gateway'), directory);
  return {
    path,
    ...(home === undefined ? {} : { home }),
    zone,
    lanes: map.get('lanes')?.integer(1, 1024) ?? LANES_MAX,
    atOnce: map.get('at-once')?.integer(PLACES_MIN, MACHINES_MAX) ?? Math.max(AT_ONCE_LEAST, availableParallelism()),
    bandwidth: readBandwidth(map.get('bandwidth'), zone),
    ...(metrics === undefined ? {} : { metrics }),
    log: map.get('log')?.oneOf(LOG_LEVELS) ?? 'info',
    ...(connectionStringFile === undefined ? {} : { connectionStringFile }),
    ...(gatewayTokenFile === undefined ? {} : { gatewayTokenFile }),
    ...(gatewayCaFile === undefined ? {} : { gatewayCaFile }),
    ...(gateway ? { gateway } : {}),
    machines: readMachines(map, setting, groups),
    groups: groups.map(({ config }) => config),
  };
}

function readMachines(map: ConfigMap, setting: Setting, groups: readonly ReadGroup[]): readonly MachineConfig[] {
  const defaults = map.get('defaults')?.map(SHARED_KEYS, SECRETS);
  const machines: MachineConfig[] = [];
  // A gateway may have no machine of its own.
  const list = map.get('gateway') ? map.get('machines') : map.need('machines');
  const values = list?.list(MACHINES_MAX) ?? [];
  if (list && values.length === 0) list.fail('names no machine');
  for (const value of values) {
    const own = value.map([...OWN_KEYS, ...SHARED_KEYS], SECRETS);
    const machine = readMachine(own, own.over(defaults), setting, groups);
    // Names of items are names of folders, which some systems do not tell apart by case.
    const isSame = ({ name }: MachineConfig): boolean => name.toLowerCase() === machine.name.toLowerCase();
    if (machine.name !== '' && machines.some(isSame)) own.get('name')?.fail(`is "${machine.name}" again`);
    machines.push(machine);
  }
  checkMembers(groups, machines);
  return machines;
}

function readMachine(own: ConfigMap, map: ConfigMap, setting: Setting, groups: readonly ReadGroup[]): MachineConfig {
  const { directory, zone } = setting;
  const name = own.need('name')?.parse(parseName) ?? '';
  const group = groupOf(own, name, groups);
  const everyMs = group?.everyMs ?? map.get('every')?.parse(durationBetween('1s', '1d')) ?? EVERY_MS_DEFAULT;
  const appConsistent = group ? undefined : map.get('app-consistent');
  const layout = map.get('layout')?.oneOf(['sealed', 'raw']);
  const chunkBytes = map.get('chunk-size')?.parse(parseChunkBytes);
  const compression = map.get('compression')?.oneOf(['lz4', 'zstd', 'none']);
  const firstCopyAtMs = map.get('first-copy-at')?.parse(parseMoment);
  const serve = map.get('serve')?.map(['listen']).need('listen')?.parse(parseListen);
  const failback = map.get('failback');
  return {
    name,
    disks: readDisks(own.need('disks'), directory),
    ...readStores(own.need('to')),
    ...(layout === undefined ? {} : { layout }),
    ...(chunkBytes === undefined ? {} : { chunkBytes }),
    ...(compression === undefined ? {} : { compression }),
    keys: readKeys(map, directory),
    everyMs,
    ...(appConsistent ? { appConsistent: readAppConsistent(appConsistent, everyMs) } : {}),
    ...(firstCopyAtMs === undefined ? {} : { firstCopyAtMs }),
    resync: readResync(map.get('resync'), zone),
    retention: readRetention(map.get('retention')),
    apply: readApply(map.get('apply')),
    lanes: readLanes(map.get('lanes')),
    rpoThresholdMs:
      map.get('rpo-threshold')?.parse(durationBetween('1s', '30d')) ?? Math.max(RPO_MS_LEAST, RPO_CYCLES * everyMs),
    lowSpace: map.get('low-space')?.oneOf(['act', 'tell']) ?? 'act',
    ...(serve === undefined ? {} : { serve: { listen: serve } }),
    ...(group ? { group: group.name } : {}),
    ...(failback ? { failback: readFailback(failback, directory) } : {}),
  };
}

/** One URL, or a list: the machine replicates to the first, each further one follows the one before it. */
function readStores(value: ConfigValue | undefined): Pick<MachineConfig, 'url' | 'also'> {
  const stores: string[] = [];
  for (const each of value?.list(STORES_MAX) ?? []) {
    const url = each.parse(parseStoreUrl);
    if (url !== undefined && stores.includes(url)) each.fail(`names ${url} twice`);
    if (url !== undefined) stores.push(url);
  }
  const [url = '', ...also] = stores;
  return { url, ...(also.length === 0 ? {} : { also }) };
}

function readDisks(value: ConfigValue | undefined, directory: string): readonly string[] {
  const disks: string[] = [];
  for (const each of value?.list(DISKS_PER_ITEM_MAX) ?? []) {
    const path = each.parse((text) => resolve(directory, text));
    if (path !== undefined && disks.includes(path)) each.fail(`names ${path} twice`);
    if (path !== undefined) disks.push(path);
  }
  if (value && disks.length === 0) value.fail('names no disk');
  return disks;
}

function readKeys(map: ConfigMap, directory: string): readonly KeySource[] {
  return KEY_KEYS.flatMap((type) =>
    (map.get(type)?.list(KEY_SLOTS_MAX) ?? []).flatMap((value) => {
      const path = value.parse((text) => resolve(directory, text));
      return path === undefined ? [] : [{ type, path }];
    }),
  );
}

function readFailback(value: ConfigValue, directory: string): FailbackConfig {
  const map = value.map(['mode', 'out', 'retention']);
  const mode = map.get('mode')?.oneOf(['delta', 'full']) ?? 'delta';
  const out = map.get('out')?.parse((text) => resolve(directory, text));
  const retention = map.get('retention')?.parse((text) => resolve(directory, text));
  if (mode === 'delta' && out !== undefined)
    map.get('out')?.fail('is for new files; write mode: full, or leave it out');
  return { mode, ...(out === undefined ? {} : { out }), ...(retention === undefined ? {} : { retention }) };
}

/** `manual`, `18:30-06:00`, or a map that names days too. */
function readResync(value: ConfigValue | undefined, zone: string): MachineConfig['resync'] {
  const fallback: DailyWindow = { from: '18:30', to: '06:00', zone };
  if (!value) return fallback;
  if (value.isMap) return readWindow(value, value.map(['from', 'to', 'days']), zone) ?? fallback;
  return (
    value.parse((text): MachineConfig['resync'] => {
      if (text === 'manual') return text;
      const [from = '', to = '', ...rest] = text.split('-').map((part) => part.trim());
      const window = { from, to, zone };
      if (rest.length === 0 && windowFault(window) === undefined) return window;
      throw new RangeError(`"${text}" is neither manual nor a window such as 18:30-06:00`);
    }) ?? fallback
  );
}

function readWindow(value: ConfigValue, map: ConfigMap, zone: string): DailyWindow | undefined {
  const from = map.need('from')?.text();
  const to = map.need('to')?.text();
  const days = map
    .get('days')
    ?.list(WEEKDAYS.length)
    .map((day): Weekday | undefined => day.oneOf(WEEKDAYS))
    .filter((day) => day !== undefined);
  if (from === undefined || to === undefined) return undefined;
  const window: DailyWindow = { from, to, ...(days === undefined ? {} : { days }), zone };
  const fault = windowFault(window);
  return fault === undefined ? window : value.fail(`is wrong: ${fault}`);
}

function readBandwidth(value: ConfigValue | undefined, zone: string): BandwidthProfile {
  if (!value) return {};
  const map = value.map(['work-hours', 'other']);
  const other = map.get('other')?.parse(parseRate);
  const hours = map.get('work-hours');
  const inHours = hours?.map(['from', 'to', 'days', 'limit']);
  const window = hours && inHours && readWindow(hours, inHours, zone);
  const limit = inHours?.need('limit')?.parse(parseRate);
  return {
    ...(window && limit !== undefined ? { workHours: { ...window, bytesPerSecond: limit } } : {}),
    ...(other === undefined ? {} : { otherBytesPerSecond: other }),
  };
}

function readRetention(value: ConfigValue | undefined): RetentionPolicy {
  if (!value) return RETENTION_DEFAULT;
  const map = value.map(['keep', 'app-consistent-keep', 'points']);
  const span = durationBetween('1s', '3650d');
  const appConsistentKeepMs = map.get('app-consistent-keep')?.parse(span);
  const policy: RetentionPolicy = {
    ...RETENTION_DEFAULT,
    keepMs: map.get('keep')?.parse(span) ?? RETENTION_DEFAULT.keepMs,
    ...(appConsistentKeepMs === undefined ? {} : { appConsistentKeepMs }),
    pointsMax: map.get('points')?.integer(1, POINTS_KEPT) ?? RETENTION_DEFAULT.pointsMax,
  };
  const fault = retentionFault(policy);
  if (fault !== undefined) value.fail(`is wrong: ${fault}`);
  return policy;
}

function readApply(value: ConfigValue | undefined): MachineConfig['apply'] {
  const map = value?.map(['logs', 'age']);
  return {
    logs: map?.get('logs')?.integer(1, SHIPPED_LOGS_MAX / 2) ?? APPLY_DEFAULT.logs,
    ageMs: map?.get('age')?.parse(durationBetween('1s', '30d')) ?? APPLY_DEFAULT.ageMs,
  };
}

function readLanes(value: ConfigValue | undefined): MachineConfig['lanes'] {
  const map = value?.map(['min', 'max']);
  const max = map?.get('max')?.integer(1, LANES_MAX) ?? LANES_MAX;
  const min = map?.get('min')?.integer(1, LANES_MAX) ?? Math.min(4, max);
  if (min > max) value?.fail(`asks for at least ${min} and at most ${max}`);
  return { min: Math.min(min, max), max };
}

function parseListen(text: string): string {
  if (text.startsWith('unix:') && isAbsolute(text.slice('unix:'.length))) return text;
  parseLoopback(text);
  return text;
}

function parseChunkBytes(text: string): number {
  const bytes = parseSize(text);
  checkChunkBytes(bytes);
  return bytes;
}

function parseRate(text: string): number {
  const bytes = parseSize(text);
  if (bytes >= 1) return bytes;
  throw new RangeError('nothing a second would stop everything; leave it out for no cap');
}

function parseZone(text: string): string {
  if (isZone(text)) return text;
  throw new RangeError(`"${text}" is no time zone; write for example Europe/Berlin`);
}

function localZone(): string {
  return new Intl.DateTimeFormat().resolvedOptions().timeZone;
}
