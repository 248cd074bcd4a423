/** `groups` of the configuration: machines that ship together, whose schedule is that of their group. */
import { GROUP_ITEMS_MAX, MACHINES_MAX } from '../../limits.ts';
import type { ConfigMap, ConfigValue } from './config-reader.ts';
import { durationBetween, parseDuration, parseName } from './config-values.ts';
import type { AppConsistency, GroupConfig, MachineConfig } from './types.ts';

const EVERY_MS_DEFAULT = parseDuration('5min');
const FREEZE_MS_DEFAULT = parseDuration('30s');
const MEMBERS_MIN = 2;

/** A group, and where its machines are named. */
export interface ReadGroup {
  readonly config: GroupConfig;
  readonly members: readonly { readonly name: string; readonly value: ConfigValue }[];
}

export function readGroups(value: ConfigValue | undefined): readonly ReadGroup[] {
  const groups: ReadGroup[] = [];
  for (const each of value?.list(MACHINES_MAX) ?? []) {
    const map = each.map(['name', 'machines', 'every', 'app-consistent']);
    const group = readGroup(map, groups);
    if (groups.some(({ config }) => config.name !== '' && config.name === group.config.name)) {
      map.get('name')?.fail(`is "${group.config.name}" again`);
    }
    groups.push(group);
  }
  return groups;
}

function readGroup(map: ConfigMap, others: readonly ReadGroup[]): ReadGroup {
  const list = map.need('machines');
  const members: ReadGroup['members'][number][] = [];
  for (const value of list?.list(GROUP_ITEMS_MAX) ?? []) {
    const name = value.parse(parseName);
    if (name === undefined) continue;
    const other = others.find(({ config }) => config.machines.includes(name));
    if (members.some((member) => member.name === name)) value.fail(`names "${name}" twice`);
    else if (other) value.fail(`names "${name}", which is in group "${other.config.name}" already`);
    else members.push({ name, value });
  }
  if (list && members.length < MEMBERS_MIN)
    list.fail(`names ${members.length} machines; a group has 2 to ${GROUP_ITEMS_MAX}`);
  const everyMs = map.get('every')?.parse(durationBetween('1s', '1d')) ?? EVERY_MS_DEFAULT;
  const appConsistent = map.get('app-consistent');
  const config: GroupConfig = {
    name: map.need('name')?.parse(parseName) ?? '',
    machines: members.map(({ name }) => name),
    everyMs,
    ...(appConsistent ? { appConsistent: readAppConsistent(appConsistent, everyMs) } : {}),
  };
  return { config, members };
}

/** The group of a machine, which then has no schedule of its own. */
export function groupOf(own: ConfigMap, name: string, groups: readonly ReadGroup[]): GroupConfig | undefined {
  const group = groups.find(({ config }) => config.machines.includes(name))?.config;
  for (const key of group ? ['every', 'app-consistent'] : []) {
    own.get(key)?.fail(`is what group "${group!.name}" says; leave it out here`);
  }
  return group;
}

/** Notes members that are no machines. */
export function checkMembers(groups: readonly ReadGroup[], machines: readonly MachineConfig[]): void {
  for (const { name, value } of groups.flatMap(({ members }) => members)) {
    if (!machines.some((machine) => machine.name === name))
      value.fail(`names "${name}", which is no machine of this file`);
  }
}

export function readAppConsistent(value: ConfigValue, cycleMs: number): AppConsistency {
  const map = value.map(['every', 'freeze', 'thaw', 'timeout']);
  const everyMs = map.need('every')?.parse(durationBetween('1s', '30d')) ?? cycleMs;
  if (everyMs < cycleMs) map.get('every')?.fail('is shorter than a cycle');
  const freeze = map.get('freeze')?.text();
  const thaw = map.get('thaw')?.text();
  if ((freeze === undefined) !== (thaw === undefined)) value.fail('needs "freeze" and "thaw" together');
  const timeoutMs = map.get('timeout')?.parse(durationBetween('1s', '1h')) ?? FREEZE_MS_DEFAULT;
  const commands = freeze === undefined || thaw === undefined ? {} : { freeze, thaw };
  return { everyMs, ...commands, timeoutMs };
}
