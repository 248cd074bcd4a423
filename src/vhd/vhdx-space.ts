/**
 * ReservedSpace: the parts of a VHDX file in which no block may lie: header section, log, regions. Made when the file
 * is opened, asked for every block.
 */
import type { BlockferryError } from '../errors.ts';
import type { LogPlacement } from './vhdx-header.ts';
import { HEADER_SECTION_BYTES, vhdxFault } from './vhdx-layout.ts';
import type { RegionTable } from './vhdx-region.ts';

interface Span {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

/** A file that may grow while it is open. */
interface Sized {
  readonly sizeBytes: number;
}

export class ReservedSpace {
  readonly #file: Sized;
  /** Ascending and disjoint. */
  readonly #spans: readonly Span[];

  private constructor(spans: readonly Span[], file: Sized) {
    this.#spans = spans;
    this.#file = file;
  }

  /** @throws VHDX_REGION if two of them overlap */
  static of(log: LogPlacement, regions: RegionTable, file: Sized, source: string): ReservedSpace {
    const spans: Span[] = regions.all.map((region) => ({
      name: `region ${region.guid}`,
      start: region.offset,
      end: region.offset + region.lengthBytes,
    }));
    spans.push({ name: 'the header section', start: 0, end: HEADER_SECTION_BYTES });
    if (log.lengthBytes > 0) spans.push({ name: 'the log', start: log.offset, end: log.offset + log.lengthBytes });
    spans.sort((a, b) => a.start - b.start);
    for (let i = 1; i < spans.length; i += 1) {
      if (spans[i]!.start < spans[i - 1]!.end) throw overlap(spans[i - 1]!, spans[i]!, source);
    }
    return new ReservedSpace(spans, file);
  }

  /** The rule that a block with `lengthBytes` needed bytes at `fileOffset` breaks; undefined if it may lie there. */
  misplacement(fileOffset: number, lengthBytes: number): string | undefined {
    const end = fileOffset + lengthBytes;
    const { sizeBytes } = this.#file;
    if (end > sizeBytes) return `a block ends inside the file, which has ${sizeBytes} bytes`;
    const span = this.#spans[this.#firstEndingAbove(fileOffset)];
    return span !== undefined && span.start < end ? `no block lies over ${span.name}` : undefined;
  }

  #firstEndingAbove(offset: number): number {
    let low = 0;
    let high = this.#spans.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#spans[middle]!.end > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

function overlap(a: Span, b: Span, source: string): BlockferryError {
  const rule = 'header section, log and regions do not overlap';
  return vhdxFault('VHDX_REGION', source, b.start, rule, `${b.name} begins inside ${a.name}`);
}
