/**
 * Damages images: bit and byte flips, numbers at the edges of their fields, blocks of bytes copied, moved, cleared and
 * taken from another image, files cut and grown. Most damage goes where the structures are, and the checksums over it
 * are made right again more often than not: what a checksum stops tests only the checksum.
 */
import type { Dice } from './dice.ts';
import { PAGE_BYTES, type PagedImage } from './paged-image.ts';

/** A part of an image that is worth damaging. */
export interface Spot {
  readonly offset: number;
  readonly lengthBytes: number;
  /** How often it is chosen, against the others. */
  readonly weight: number;
}

/** A sound image to start from. */
export interface BaseImage {
  readonly name: string;
  readonly image: PagedImage;
  readonly spots: readonly Spot[];
  /** Makes the checksums of the format right again. */
  readonly seal: (image: PagedImage) => void;
}

const KIB = 1024;
const MIB = 1024 * KIB;
/** Files are grown within this, and once in a thousand growths to the other: a sparse file costs an attacker nothing. */
const GROWN_BYTES_MAX = 8 * MIB;
const HUGE_BYTES_MAX = 2 ** 43;

const EDGES: readonly bigint[] = [
  ...[0n, 1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n, 63n, 64n, 255n, 256n, 257n, 511n, 512n, 513n, 1024n, 2047n, 2048n, 4095n],
  ...[4096n, 8192n, 0x7fffn, 0x8000n, 0xffffn, 0x10000n, 0x20000n, 0x30000n, 0x40000n, 0xfffffn, 0x100000n, 0x200000n],
  ...[0x300000n, 0x10000000n, 0x20000000n, 0x7fffffffn, 0x80000000n, 0xfffffffen, 0xffffffffn, 0x100000000n],
  ...[2n ** 40n, 2n ** 46n, 2n ** 46n + 512n, 2n ** 52n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 63n - 1n],
  ...[2n ** 63n, 2n ** 64n - 1n, 2n ** 64n - 512n, 2n ** 64n - 4096n, 2n ** 64n - 2n ** 20n],
];
const STEPS: readonly bigint[] = [1n, 2n, 4n, 8n, 512n, 4096n, 0x10000n, 0x100000n, 0x100001n];

type Damage = (image: PagedImage, base: BaseImage, donor: BaseImage, dice: Dice) => void;

const DAMAGES: readonly (readonly [name: string, weight: number, damage: Damage])[] = [
  ['flip a bit', 4, (image, base, _, dice) => change(image, place(base, dice), 1, (b) => flipBit(b, dice))],
  ['change a byte', 3, (image, base, _, dice) => change(image, place(base, dice), 1, (b) => b.set(dice.bytes(1)))],
  ['change a number', 14, changeNumber],
  ['copy a field', 5, copyField],
  ['copy a block', 2, copyBlock],
  ['fill a block', 2, fillBlock],
  ['shift within a structure', 2, shiftInside],
  ['take from another image', 3, graft],
  ['splice', 1, splice],
  ['cut', 2, cut],
  ['grow', 2, grow],
  ['shift the file', 1, shiftFile],
];
const DAMAGE_WEIGHTS = DAMAGES.reduce((sum, [, weight]) => sum + weight, 0);

/** A damaged copy of `base`, and what was done to it. */
export function mutate(
  base: BaseImage,
  donor: BaseImage,
  dice: Dice,
): { readonly image: PagedImage; readonly steps: readonly string[] } {
  const image = base.image.copy();
  const steps: string[] = [];
  do {
    const [name, , damage] = weighted(DAMAGES, DAMAGE_WEIGHTS, (one) => one[1], dice);
    damage(image, base, donor, dice);
    steps.push(name);
  } while (steps.length < 6 && !dice.oneIn(2));
  if (!dice.oneIn(5)) {
    base.seal(image);
    steps.push('seal');
  }
  return { image, steps };
}

function weighted<T>(choices: readonly T[], total: number, weightOf: (choice: T) => number, dice: Dice): T {
  let left = dice.below(total);
  for (const choice of choices) {
    left -= weightOf(choice);
    if (left < 0) return choice;
  }
  return choices[choices.length - 1]!;
}

function spotOf(base: BaseImage, dice: Dice): Spot {
  const total = base.spots.reduce((sum, { weight }) => sum + weight, 0);
  return weighted(base.spots, total, ({ weight }) => weight, dice);
}

/** An offset in a structure; once in a while anywhere. */
function place(base: BaseImage, dice: Dice, unit = 1): number {
  const { offset, lengthBytes } = dice.oneIn(25)
    ? { offset: 0, lengthBytes: base.image.sizeBytes }
    : spotOf(base, dice);
  return offset + Math.floor(dice.below(lengthBytes) / unit) * unit;
}

function change(image: PagedImage, offset: number, lengthBytes: number, edit: (bytes: Buffer) => void): void {
  if (offset + lengthBytes > image.sizeBytes) return;
  const bytes = image.slice(offset, lengthBytes);
  edit(bytes);
  image.write(bytes, offset);
}

function flipBit(bytes: Buffer, dice: Dice): void {
  bytes[0]! ^= 1 << dice.below(8);
}

function changeNumber(image: PagedImage, base: BaseImage, _donor: BaseImage, dice: Dice): void {
  const width = dice.pick([2, 4, 4, 8, 8]);
  const offset = place(base, dice, dice.oneIn(10) ? 1 : width);
  const isBigEndian = dice.oneIn(2);
  change(image, offset, width, (bytes) => {
    if (isBigEndian) bytes.reverse();
    bytes.set(littleEndian(newNumber(bytes, image, dice), width));
    if (isBigEndian) bytes.reverse();
  });
}

function newNumber(old: Buffer, image: PagedImage, dice: Dice): bigint {
  switch (dice.below(6)) {
    case 0:
    case 1:
      return dice.pick(EDGES);
    case 2:
      return readLittleEndian(old) + (dice.oneIn(2) ? dice.pick(STEPS) : -dice.pick(STEPS));
    case 3:
      return BigInt(image.sizeBytes) / dice.pick([1n, 512n]) + BigInt(dice.between(-2, 2)) * dice.pick([1n, 512n]);
    case 4:
      // A place in whole MiB with a state below it, as block tables have them.
      return (BigInt(dice.below(16)) << 20n) | BigInt(dice.below(8));
    default:
      return BigInt(dice.below(256));
  }
}

function littleEndian(value: bigint, width: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, value));
  return bytes.subarray(0, width);
}

function readLittleEndian(bytes: Buffer): bigint {
  const wide = Buffer.alloc(8);
  bytes.copy(wide);
  return wide.readBigUInt64LE();
}

function copyField(image: PagedImage, base: BaseImage, _donor: BaseImage, dice: Dice): void {
  const width = dice.pick([4, 8, 16]);
  const spot = spotOf(base, dice);
  const at = (): number => spot.offset + Math.floor(dice.below(spot.lengthBytes) / width) * width;
  const bytes = image.slice(at(), width);
  change(image, at(), width, (field) => bytes.copy(field));
}

function copyBlock(image: PagedImage, base: BaseImage, _donor: BaseImage, dice: Dice): void {
  const lengthBytes = dice.pick([24, 32, 64, 512, 1024, 4096]);
  const bytes = image.slice(place(base, dice, lengthBytes), lengthBytes);
  change(image, place(base, dice, lengthBytes), lengthBytes, (block) => bytes.copy(block));
}

function fillBlock(image: PagedImage, base: BaseImage, _donor: BaseImage, dice: Dice): void {
  const lengthBytes = dice.between(1, dice.pick([8, 64, 1024]));
  change(image, place(base, dice), lengthBytes, (block) => block.fill(dice.pick([0, 0xff, 0x80, 1])));
}

/** Takes bytes out of a structure, or puts some in; the rest of it moves. */
function shiftInside(image: PagedImage, base: BaseImage, _donor: BaseImage, dice: Dice): void {
  const spot = spotOf(base, dice);
  const at = dice.below(spot.lengthBytes);
  const n = Math.min(dice.pick([1, 2, 4, 8, 32]), spot.lengthBytes - at);
  change(image, spot.offset + at, Math.min(spot.lengthBytes - at, 4 * KIB), (rest) => {
    if (dice.oneIn(2)) rest.copyWithin(0, n);
    else rest.copyWithin(n, 0);
  });
}

function graft(image: PagedImage, _base: BaseImage, donor: BaseImage, dice: Dice): void {
  const spot = spotOf(donor, dice);
  const at = dice.oneIn(2) ? 0 : dice.below(spot.lengthBytes);
  const lengthBytes = dice.oneIn(2) ? spot.lengthBytes - at : dice.between(1, spot.lengthBytes - at);
  const bytes = donor.image.slice(spot.offset + at, lengthBytes);
  change(image, spot.offset + at, lengthBytes, (block) => bytes.copy(block));
}

/** The beginning of one image, the rest of another. */
function splice(image: PagedImage, base: BaseImage, donor: BaseImage, dice: Dice): void {
  const from = place(base, dice, dice.pick([1, 512, PAGE_BYTES]));
  image.resize(Math.min(from, image.sizeBytes));
  for (const { offset, lengthBytes } of donor.image.filledRuns()) {
    const start = Math.max(offset, from);
    const end = Math.min(offset + lengthBytes, donor.image.sizeBytes);
    if (start < end) image.write(donor.image.slice(start, end - start), start);
  }
  image.resize(Math.max(image.sizeBytes, donor.image.sizeBytes));
}

function cut(image: PagedImage, base: BaseImage, _donor: BaseImage, dice: Dice): void {
  const tailBytes = dice.pick([1, 2, 511, 512, 513, 1024, PAGE_BYTES, MIB]);
  const sizeBytes = dice.oneIn(2) ? image.sizeBytes - tailBytes : place(base, dice, dice.pick([1, 512, PAGE_BYTES]));
  image.resize(Math.max(0, Math.min(image.sizeBytes, sizeBytes)));
}

function grow(image: PagedImage, _base: BaseImage, _donor: BaseImage, dice: Dice): void {
  const unit = dice.pick([1, 511, 512, PAGE_BYTES, MIB]);
  const maxBytes = dice.oneIn(1000) ? HUGE_BYTES_MAX : GROWN_BYTES_MAX;
  image.resize(image.sizeBytes + unit * dice.between(1, Math.floor(maxBytes / unit)));
}

/** Whole pages come into the middle of the file, or are lost. */
function shiftFile(image: PagedImage, base: BaseImage, _donor: BaseImage, dice: Dice): void {
  const pages = dice.pick([1, 2, 16, 256]);
  image.shiftPages(Math.floor(place(base, dice) / PAGE_BYTES), dice.oneIn(2) ? pages : -pages);
}
