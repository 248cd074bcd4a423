import { expect, test } from 'vitest';
import { mapDisk } from '../../src/tools/index.ts';
import { fakeDisk } from './fake-disk.ts';

test('each kind of extent has the flags that qemu-img gives it', async () => {
  const disk = await fakeDisk([
    { kind: 'absent', lengthBytes: 1024 },
    { kind: 'data', bytes: new Uint8Array(512) },
    { kind: 'zero', lengthBytes: 2048 },
    { kind: 'memory', bytes: new Uint8Array(512) },
    { kind: 'data', bytes: new Uint8Array(512) },
  ]);
  const entries = [];
  for await (const entry of mapDisk(disk)) entries.push(entry);
  expect(entries).toEqual([
    { start: 0, length: 1024, depth: 0, present: false, zero: true, data: false },
    { start: 1024, length: 512, depth: 0, present: true, zero: false, data: true, offset: 0 },
    { start: 1536, length: 2048, depth: 0, present: true, zero: true, data: false },
    { start: 3584, length: 512, depth: 0, present: true, zero: false, data: true },
    { start: 4096, length: 512, depth: 0, present: true, zero: false, data: true, offset: 512 },
  ]);
});
