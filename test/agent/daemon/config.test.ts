/** The configuration file: what is read, every mistake with its place, and that nothing hostile hangs or is echoed. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { loadConfig } from '../../../src/agent/daemon/index.ts';
import { isBlockferryError } from '../../../src/errors.ts';

const MANUAL = readFileSync(fileURLToPath(new URL('../../../docs/agent.md', import.meta.url)), 'utf8');

/** The message of the refusal, line by line. */
function faultsOf(text: string): readonly string[] {
  try {
    loadConfig(text, 'agent.yaml');
  } catch (error) {
    if (isBlockferryError(error, 'CONFIG_INVALID')) return error.message.split('\n');
    throw error;
  }
  return [];
}

/** A machine with these further lines. */
const machine = (...lines: readonly string[]): string =>
  [
    'machines:',
    '  - name: vm',
    '    disks: [vm.raw]',
    '    to: file:///srv/vm',
    ...lines.map((line) => `    ${line}`),
  ].join('\n');

test('the example of the manual is a configuration', () => {
  const [, example] = /```yaml\n([\s\S]*?)```/.exec(MANUAL)!;
  const config = loadConfig(example!, '/etc/blockferry/agent.yaml');
  expect(config).toMatchObject({ home: '/var/lib/blockferry', zone: 'Europe/Berlin', lanes: 32, log: 'info' });
  expect(config.bandwidth).toMatchObject({
    workHours: { bytesPerSecond: 20 * 2 ** 20 },
    otherBytesPerSecond: 200 * 2 ** 20,
  });
  expect(config.machines.map(({ name, everyMs }) => [name, everyMs])).toEqual([
    ['web1', 300_000],
    ['db1', 30_000],
    ['shop-web', 900_000],
    ['shop-db', 900_000],
  ]);
  expect(config.groups).toEqual([{ name: 'shop', machines: ['shop-web', 'shop-db'], everyMs: 900_000 }]);
  expect(config.machines[0]).toMatchObject({
    appConsistent: { everyMs: 4 * 3_600_000, timeoutMs: 30_000 },
    keys: [{ type: 'passphrase-file', path: '/etc/blockferry/passphrase' }],
    serve: { listen: '127.0.0.1:10809' },
  });
});

test('what a machine does not say comes from the defaults, then from the manual', () => {
  const text = `defaults: { every: 15min, resync: manual }\n${machine('every: 1h 30min')}`;
  const [vm] = loadConfig(text, '/etc/agent.yaml').machines;
  expect(vm).toMatchObject({
    everyMs: 5_400_000,
    resync: 'manual',
    disks: ['/etc/vm.raw'],
    apply: { logs: 32, ageMs: 3_600_000 },
    lanes: { min: 4, max: 32 },
    rpoThresholdMs: 3 * 5_400_000,
    retention: { keepMs: 24 * 3_600_000 },
    lowSpace: 'act',
  });
  expect(loadConfig(machine(), '/etc/agent.yaml').machines[0]).toMatchObject({
    everyMs: 300_000,
    rpoThresholdMs: 900_000,
    resync: { from: '18:30', to: '06:00' },
  });
});

test('all mistakes are told at once, each with its line and column, in their order', () => {
  const text = `home: x
tim-zone: Europe/Berlin
lanes: 0
machines:
  - name: a/b
    disks: []
    to: https://account.blob.core.windows.net/c/p?sig=abc
    evry: 3s
    every: 3 lightyears
    passphrase: hunter2
  - name: ok
    to: [1]
    resync: 25:00-3
`;
  expect(faultsOf(text)).toEqual([
    'agent.yaml:2:1: "tim-zone" is not a known key; did you mean "time-zone"?',
    expect.stringMatching(/^agent\.yaml:3:8: "lanes" is wrong/),
    expect.stringMatching(/^agent\.yaml:5:11: "name" is wrong: "a\/b" is no name/),
    'agent.yaml:6:12: "disks" names no disk',
    expect.stringMatching(/^agent\.yaml:7:9: "to" is wrong: it carries a SAS/),
    'agent.yaml:8:5: "evry" is not a known key; did you mean "every"?',
    expect.stringMatching(/^agent\.yaml:9:12: "every" is wrong: "3 lightyears" is no span of time/),
    expect.stringMatching(/^agent\.yaml:10:5: "passphrase" is not allowed here: secrets do not stand in this file/),
    expect.stringMatching(/^agent\.yaml:11:5: "machines" lacks "disks"/),
    expect.stringMatching(/^agent\.yaml:12:10: "to" is wrong: "1" is no URL of a store/),
    expect.stringMatching(/^agent\.yaml:13:13: "resync" is wrong/),
  ]);
});

test('no secret that was written by mistake is repeated', () => {
  const secrets = machine('passphrase: hunter2', 'key: hunter2').replace('/srv/vm', '/srv/vm?sig=hunter2');
  const told = faultsOf(`connection-string: AccountKey=hunter2\n${secrets}`);
  expect(told.length).toBe(4);
  expect(told.join()).not.toContain('hunter2');
});

describe('refused with the place', () => {
  test.each([
    ['', /^agent\.yaml:1:1: the file must be a map/],
    ['[]', /^agent\.yaml:1:1: the file must be a map/],
    ['home: x', /^agent\.yaml:1:1: the file lacks "machines"/],
    ['machines: []', /^agent\.yaml:1:11: "machines" names no machine/],
    ['a: [', /^agent\.yaml:1:5: /],
    ['home: x\nhome: y', /^agent\.yaml:2:1: map keys must be unique/],
    ['machines: &a []\ndefaults: *a', /^agent\.yaml:2:11: "defaults" is an alias/m],
    ['---\nhome: x\n---\nhome: y', /^agent\.yaml:3:1: /],
    [machine('every: 0s'), /:5:12: "every" is wrong: "0s" is outside 1s to 1d/],
    [machine('every: 5'), /"every" is wrong: "5" is no span/],
    [machine('chunk-size: 100KiB'), /:5:17: "chunk-size" is wrong/],
    [machine('layout: striped'), /:5:13: "layout" is "striped", must be one of sealed, raw/],
    [machine('first-copy-at: 2026-12-01 22:00'), /:5:20: "first-copy-at" is wrong/],
    [machine('first-copy-at: 2026-13-01T22:00:00Z'), /"first-copy-at" is wrong/],
    [machine('app-consistent: { every: 1h, freeze: x }'), /:5:21: "app-consistent" needs "freeze" and "thaw" together/],
    [machine('app-consistent: { every: 1min }'), /"every" is shorter than a cycle/],
    [machine('resync: { from: 18:30, to: 06:00, days: [someday] }'), /"days" is "someday", must be one of mon/],
    [machine('resync: { from: 18:30 }'), /"resync" lacks "to"/],
    [machine('retention: { keep: 2d, app-consistent-keep: 1d }'), /"retention" is wrong/],
    [machine('apply: { logs: 0 }'), /"logs" is wrong/],
    [machine('lanes: { min: 8, max: 4 }'), /"lanes" asks for at least 8 and at most 4/],
    [machine('serve: { listen: 192.168.0.1:10809 }'), /"listen" is wrong: "192.168.0.1" is not the loopback/],
    [machine('serve: {}'), /"serve" lacks "listen"/],
    [machine('failback: { out: x }'), /"out" is for new files; write mode: full/],
    [machine('to: x'), /:5:5: map keys must be unique/],
    [`metrics: 0.0.0.0:9464\n${machine()}`, /:1:10: "metrics" is wrong: "0.0.0.0" is not the loopback/],
    [`metrics: example.com:9464\n${machine()}`, /is not the loopback/],
    [`time-zone: Europe/Berln\n${machine()}`, /:1:12: "time-zone" is wrong: "Europe\/Berln" is no time zone/],
    [`log: loud\n${machine()}`, /:1:6: "log" is "loud", must be one of debug, info, warn, error/],
    [`bandwidth: { other: 0 }\n${machine()}`, /"other" is wrong: nothing a second/],
    [`defaults: { name: x }\n${machine()}`, /:1:13: "name" is not a known key/],
    [`${machine()}\n  - name: VM\n    disks: [b.raw]\n    to: file:///b`, /:5:11: "name" is "VM" again/],
    [machine().replace('[vm.raw]', '[vm.raw, ./vm.raw]'), /:3:21: "disks" names .*vm\.raw twice/],
    [machine().replace('file:///srv/vm', 'ftp://x'), /:4:9: "to" is wrong: "ftp:\/\/x" is no URL of a store/],
  ])('%j', (text, expected) => {
    const faults = faultsOf(text);
    expect(faults.join('\n')).toMatch(expected);
    for (const fault of faults) expect(fault).toMatch(/^agent\.yaml:\d+:\d+: /);
  });
});

test('a file that nests without end, or has mistakes without end, is refused in no time', () => {
  expect(faultsOf('['.repeat(100_000)).length).toBeGreaterThan(0);
  expect(faultsOf(`${'['.repeat(20_000)}${']'.repeat(20_000)}`).length).toBeGreaterThan(0);
  const many = faultsOf(Array.from({ length: 5000 }, (_, i) => `k${i}: 1`).join('\n'));
  expect(many.length).toBe(101);
  expect(many.at(-1)).toBe('and 4901 more');
  const machines = Array.from({ length: 300 }, (_, i) => `  - { name: m${i}, disks: [a], to: file:///a }`).join('\n');
  expect(faultsOf(`machines:\n${machines}`)).toEqual([
    expect.stringMatching(/"machines" has 300 elements, at most 256/),
  ]);
});

test('the manual names every key, and says its default', () => {
  const keys = [...faultsOf(`x: 1\n${machine('x: 1')}`)];
  expect(keys.length).toBe(2);
  const rows = [...MANUAL.matchAll(/^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \|/gm)].flatMap(([, names]) =>
    names!.split(', ').map((name) => name.replaceAll('`', '')),
  );
  const documented = new Set(rows);
  for (const key of [
    'home',
    'time-zone',
    'lanes',
    'bandwidth',
    'metrics',
    'log',
    'connection-string-file',
    'defaults',
  ]) {
    expect(documented).toContain(key);
  }
  for (const key of [
    'every',
    'app-consistent',
    'first-copy-at',
    'resync',
    'retention',
    'apply',
    'rpo-threshold',
    'low-space',
    'serve',
  ]) {
    expect(documented).toContain(key);
  }
});
