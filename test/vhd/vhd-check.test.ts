import { beforeEach, expect, test } from 'vitest';
import { checkDisk } from '../../src/vhd/check-disk.ts';
import { edit, editHeader, MIB, makeVhd, type TestPorts, testPorts } from './vhd-image.ts';

const PATH = '/d/disk.vhd';

let ports: TestPorts;

beforeEach(async () => {
  ports = testPorts();
  await ports.files.makeDirectory('/d');
  const fills = [0, 1, 2].map((i) => ({ offset: i * 2 * MIB, lengthBytes: 512, value: 1 }));
  await makeVhd(ports, PATH, { virtualSizeBytes: 8 * MIB }, fills);
});

test('a sound disk has no fault, and its facts', async () => {
  const { info, faults } = await checkDisk(PATH, { ports });
  expect(faults).toEqual([]);
  expect(info).toMatchObject({ format: 'vhd', subformat: 'dynamic', virtualSizeBytes: 8 * MIB, chain: [PATH] });
});

test('every fault is found, with its offset', async () => {
  edit(ports, PATH, (bytes) => {
    bytes.fill(0, 0, 512);
    bytes.writeUInt8(1, 1500);
    bytes.writeUInt32BE(2, 1536);
    bytes.writeUInt32BE(0x80000000, 1540);
    bytes.writeUInt32BE(bytes.readUInt32BE(1544), 1548);
  });
  const { info, faults } = await checkDisk(PATH, { ports });
  expect(info).toBeUndefined();
  expect(faults.map(({ code, offset }) => `${code} ${offset}`)).toEqual([
    'VHD_FOOTER 0',
    `VHD_HEADER ${512 + 36}`,
    'VHD_BAT 1540',
    'VHD_BAT 1536',
    'VHD_BAT 1544',
    'VHD_BAT 1548',
  ]);
  expect(faults.every(({ file, rule }) => file === PATH && rule.length > 10)).toBe(true);
});

test('a spare footer that differs is a fault, though the disk opens', async () => {
  edit(ports, PATH, (bytes) => bytes.fill(0, 0, 512));
  const { info, faults } = await checkDisk(PATH, { ports });
  expect(info).toBeDefined();
  expect(faults).toMatchObject([{ code: 'VHD_FOOTER', offset: 0 }]);
});

test('clear bits in a dynamic disk are a note', async () => {
  edit(ports, PATH, (bytes) => bytes.fill(0, 15 * 512, 16 * 512));
  const { info, faults } = await checkDisk(PATH, { ports });
  expect(faults).toEqual([]);
  expect(info?.notes).toContainEqual(expect.stringContaining('1 blocks have clear bits'));
});

test('a used entry behind the end of the disk is a fault', async () => {
  edit(ports, PATH, (bytes) => {
    editHeader(bytes, (header) => header.writeUInt32BE(9, 28));
    bytes.writeUInt32BE(15, 1536 + 8 * 4);
  });
  expect((await checkDisk(PATH, { ports })).faults).toMatchObject([{ code: 'VHD_BAT', offset: 1536 + 32 }]);
});

test('parents are checked too', async () => {
  await makeVhd(ports, '/d/top.vhd', { virtualSizeBytes: 8 * MIB, subformat: 'differencing', parent: PATH });
  edit(ports, PATH, (bytes) => bytes.fill(0, 0, 512));
  expect((await checkDisk('/d/top.vhd', { ports })).faults).toMatchObject([{ code: 'VHD_FOOTER', file: PATH }]);
});

test('a missing parent is a fault', async () => {
  await makeVhd(ports, '/d/top.vhd', { virtualSizeBytes: 8 * MIB, subformat: 'differencing', parent: PATH });
  await ports.files.remove(PATH);
  expect((await checkDisk('/d/top.vhd', { ports })).faults).toMatchObject([{ code: 'CHAIN_PARENT_NOT_FOUND' }]);
});

test('a table that breaks a rule a million times is reported in bounded space', async () => {
  await makeVhd(ports, '/d/large.vhd', { virtualSizeBytes: 2040 * 1024 * MIB });
  const file = await ports.files.open('/d/large.vhd', 'modify');
  await file.write(Buffer.alloc(4 * 2040 * 512), 1536);
  const start = performance.now();
  const { faults } = await checkDisk('/d/large.vhd', { ports });
  expect(faults.length).toBe(1001);
  expect(faults.at(-1)?.rule).toContain('the rest is left out');
  // Seconds; sorting out a million by pairs would take hours.
  expect(performance.now() - start).toBeLessThan(30_000);
});
