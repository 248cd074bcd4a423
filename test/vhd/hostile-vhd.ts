/** Small sound VHD files to damage, and their checksums. Blocks are of 64 KiB, the smallest that we write. */
import { vhdChecksum } from '../../src/vhd/vhd-footer.ts';
import { DIRECTORY, type Images } from '../support/hostile-run.ts';
import type { BaseImage, Spot } from '../support/mutator.ts';
import { PagedImage } from '../support/paged-image.ts';
import { KIB, makeVhd, testPorts } from './vhd-image.ts';

const DISK_BYTES = 512 * KIB;
const BLOCK_BYTES = 64 * KIB;
/** Behind these a footer holds only reserved zeros. */
const FOOTER_FIELD_BYTES = 85;
const WITH_BLOCK_MAP = 'block map behind the table';

/** The images, and the parents of those that have one. */
export async function hostileVhds(): Promise<Images> {
  const ports = testPorts();
  await ports.files.makeDirectory(DIRECTORY);
  const at = (name: string): string => `${DIRECTORY}/${name}`;
  const common = { virtualSizeBytes: DISK_BYTES, blockSizeBytes: BLOCK_BYTES, azureSize: false } as const;
  const child = (parent: string) => ({ ...common, subformat: 'differencing', parent: at(parent) }) as const;
  const fill = (offset: number, lengthBytes: number, value: number) => ({ offset, lengthBytes, value });

  await makeVhd(ports, at('dynamic'), common, [
    fill(0, 512, 1),
    fill(63 * KIB, 9 * KIB, 2),
    fill(500 * KIB, 4 * KIB, 3),
  ]);
  await makeVhd(ports, at('fixed'), { ...common, subformat: 'fixed' }, [
    fill(0, 2048, 4),
    fill(DISK_BYTES - 512, 512, 5),
  ]);
  await makeVhd(ports, at('child'), child('dynamic'), [fill(512, 512, 6), fill(260 * KIB, 1024, 7)]);
  await makeVhd(ports, at('grandchild'), child('child'), [fill(1024, 512, 8), fill(100 * KIB, 3 * KIB, 9)]);
  const odd = { ...common, virtualSizeBytes: DISK_BYTES - 1536 };
  await makeVhd(ports, at('odd'), odd, [fill(DISK_BYTES - 4096, 2560, 10), fill(4096, 512, 11)]);

  const bytesOf = (name: string): Buffer => Buffer.from(ports.files.get(at(name))!);
  const short = bytesOf('odd').subarray(0, -1);
  const withoutFooter = bytesOf('dynamic').subarray(0, -512);
  const images = [
    ...['dynamic', 'fixed', 'child', 'grandchild', 'odd'].map((name) => [name, bytesOf(name)] as const),
    ['footer of 511 bytes', short] as const,
    ['footer lost', withoutFooter] as const,
    [WITH_BLOCK_MAP, withBlockMap(bytesOf('dynamic'))] as const,
    ['child by a URL', withUrl(bytesOf('child'))] as const,
  ];
  return {
    bases: images.map(([name, bytes]) => baseOf(name, bytes)),
    others: new Map(['dynamic', 'child'].map((name) => [at(name), PagedImage.of(bytesOf(name))])),
  };
}

/** XenServer's map of blocks, in the gap between the table and the first block. */
function withBlockMap(bytes: Buffer): Buffer {
  const tableEnd = Number(bytes.readBigUInt64BE(512 + 16)) + 512;
  bytes.write('tdbatmap', tableEnd, 'latin1');
  bytes.writeBigUInt64BE(BigInt(tableEnd + 512), tableEnd + 8);
  bytes.writeUInt32BE(1, tableEnd + 16);
  return bytes;
}

/** The first locator as a Mac writes it. */
function withUrl(bytes: Buffer): Buffer {
  const entry = 512 + 576;
  const url = 'file://./dynamic';
  bytes.write('MacX', entry, 'latin1');
  bytes.writeUInt32BE(url.length, entry + 8);
  bytes.write(url, Number(bytes.readBigUInt64BE(entry + 16)), 'latin1');
  bytes.writeUInt32BE(vhdChecksum(bytes.subarray(512, 512 + 1024), 36), 512 + 36);
  return bytes;
}

function baseOf(name: string, bytes: Buffer): BaseImage {
  const isFixed = name === 'fixed';
  const spots: Spot[] = [
    { offset: bytes.length - (bytes.length % 512 || 512), lengthBytes: FOOTER_FIELD_BYTES, weight: 8 },
  ];
  if (!isFixed) {
    const table = Number(bytes.readBigUInt64BE(512 + 16));
    const entries = bytes.readUInt32BE(512 + 28);
    const hasParent = bytes.readUInt32BE(60) === 4;
    spots.push(
      { offset: 0, lengthBytes: FOOTER_FIELD_BYTES, weight: 4 },
      { offset: 512, lengthBytes: 60, weight: 8 },
      { offset: table, lengthBytes: entries * 4, weight: 12 },
      { offset: table + 512, lengthBytes: name === WITH_BLOCK_MAP ? 24 : 1, weight: name === WITH_BLOCK_MAP ? 4 : 1 },
    );
    if (hasParent) {
      const paths = [0, 1].map((i) => Number(bytes.readBigUInt64BE(512 + 576 + 24 * i + 16)));
      spots.push(
        { offset: 512 + 576, lengthBytes: 3 * 24, weight: 8 },
        ...paths.map((offset) => ({ offset, lengthBytes: 32, weight: 1 })),
        { offset: 512 + 64, lengthBytes: 32, weight: 1 },
        ...blockBitmaps(bytes, table, entries),
      );
    }
  }
  return { name, image: PagedImage.of(bytes), spots, seal };
}

function blockBitmaps(bytes: Buffer, table: number, entries: number): readonly Spot[] {
  const sectors = Array.from({ length: entries }, (_, i) => bytes.readUInt32BE(table + i * 4));
  const used = sectors.filter((sector) => sector !== 0xffffffff);
  return used.map((sector) => ({ offset: sector * 512, lengthBytes: 8, weight: 1 }));
}

/** Both footers, and the header where a footer says it is. */
function seal(image: PagedImage): void {
  const isShort = image.sizeBytes % 512 === 511;
  const end = image.sizeBytes - (isShort ? 511 : 512);
  sealAt(image, end, 'conectix', 512, 64);
  sealAt(image, 0, 'conectix', 512, 64);
  const headerOffset = Number(image.slice(16, 8).readBigUInt64BE());
  if (headerOffset < image.sizeBytes) sealAt(image, headerOffset, 'cxsparse', 1024, 36);
}

function sealAt(image: PagedImage, offset: number, cookie: string, lengthBytes: number, fieldOffset: number): void {
  if (offset < 0 || !image.isTouched(offset, lengthBytes)) return;
  const bytes = image.slice(offset, lengthBytes);
  if (bytes.toString('latin1', 0, 8) !== cookie) return;
  const field = Buffer.alloc(4);
  field.writeUInt32BE(vhdChecksum(bytes, fieldOffset));
  if (offset + fieldOffset + 4 <= image.sizeBytes) image.write(field, offset + fieldOffset);
}
