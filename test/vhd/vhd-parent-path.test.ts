import { posix, win32 } from 'node:path';
import { expect, test } from 'vitest';
import type { ParentPath } from '../../src/vhd/layer.ts';
import { isUnder, parentCandidates } from '../../src/vhd/parent-path.ts';

const WINDOWS: readonly ParentPath[] = [
  { kind: 'absolute', path: 'C:\\vm\\base\\parent.vhd' },
  { kind: 'volume', path: '\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\vm\\parent.vhd' },
  { kind: 'relative', path: '.\\..\\base\\parent.vhd' },
];

test('on Windows: relative, volume, absolute, then beside the child', () => {
  expect(parentCandidates('D:\\copy\\top', WINDOWS, win32)).toEqual([
    'D:\\copy\\base\\parent.vhd',
    '\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\vm\\parent.vhd',
    'C:\\vm\\base\\parent.vhd',
    'D:\\copy\\top\\parent.vhd',
  ]);
});

test('elsewhere volumes, drives and shares lead nowhere but to their file name', () => {
  expect(parentCandidates('/copy/top', WINDOWS, posix)).toEqual(['/copy/base/parent.vhd', '/copy/top/parent.vhd']);
  const share: ParentPath = { kind: 'absolute', path: '\\\\server\\share\\parent.vhd' };
  expect(parentCandidates('/copy', [share], posix)).toEqual(['/copy/parent.vhd']);
});

test('an absolute path of this system is taken', () => {
  expect(parentCandidates('/d', [{ kind: 'absolute', path: '/vm/parent.vhd' }], posix)).toEqual([
    '/vm/parent.vhd',
    '/d/parent.vhd',
  ]);
});

test.for(['', 'a\0b', '..', '.\\'])('the path %j gives nothing to open beside the child', (path) => {
  const candidates = parentCandidates('/d', [{ kind: 'absolute', path }], posix);
  expect(candidates).toEqual([]);
});

test.for([
  ['/d', '/d/x', true],
  ['/d', '/d', true],
  ['/d', '/dd/x', false],
  ['/d', '/', false],
  ['/d', '/d/..x', true],
] as const)('below %s: %s is %s', ([root, path, expected]) => {
  expect(isUnder(root, path, posix)).toBe(expected);
});

test.for([
  ['C:\\vm', 'c:\\VM\\x', true],
  ['C:\\vm', 'D:\\vm\\x', false],
  ['C:\\vm', '\\\\server\\vm\\x', false],
] as const)('below %s on Windows: %s is %s', ([root, path, expected]) => {
  expect(isUnder(root, path, win32)).toBe(expected);
});
