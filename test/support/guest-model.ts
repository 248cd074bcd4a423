/**
 * What a guest may find on its disks. It knows of each write when it was sent, when it was answered, and whether it was
 * flushed; so it can say whether content that was found after a crash lost anything, and whether a recovery point is one
 * moment across all disks.
 *
 * Writes that are under way at the same time must not overlap: then the order of a sector's writes is that of their sending.
 */

const SECTOR_BYTES = 512;

/** A write, or zeros. Moments are counted across all disks. */
export interface GuestWrite {
  readonly disk: number;
  readonly offset: number;
  readonly bytes: Buffer;
  readonly sent: number;
  /** Infinity while it is not. */
  answered: number;
  isFlushed: boolean;
}

export class GuestModel {
  #base: readonly Buffer[] = [];
  #writes: GuestWrite[] = [];
  #moment = 0;

  constructor(base: readonly Buffer[]) {
    this.rebase(base);
  }

  /** The disks hold this, and nothing is under way: what was written until now does not matter any more. */
  rebase(base: readonly Buffer[]): void {
    this.#base = base.map((content) => Buffer.from(content));
    this.#writes = [];
  }

  /** This moment; a later one is greater. */
  now(): number {
    this.#moment += 1;
    return this.#moment;
  }

  /** To be called before the write is sent. */
  send(disk: number, offset: number, bytes: Buffer): GuestWrite {
    const write = { disk, offset, bytes, sent: this.now(), answered: Number.POSITIVE_INFINITY, isFlushed: false };
    this.#writes.push(write);
    return write;
  }

  answer(write: GuestWrite): void {
    write.answered = this.now();
  }

  /** A flush of `disk` that was sent at this moment has returned. */
  flushed(disk: number, sent: number): void {
    for (const write of this.#writes) if (write.disk === disk && write.answered < sent) write.isFlushed = true;
  }

  /** Whether a write is under way in the range. */
  isBusy(disk: number, offset: number, lengthBytes: number): boolean {
    return this.#writes.some(
      (write) =>
        write.answered === Number.POSITIVE_INFINITY &&
        write.disk === disk &&
        write.offset < offset + lengthBytes &&
        offset < write.offset + write.bytes.length,
    );
  }

  /**
   * The first sector of a disk that lost what was promised: it must hold the last write that was answered (or flushed), or
   * one behind it. undefined if none did.
   */
  loss(disk: number, found: Buffer, promise: 'answered' | 'flushed'): string | undefined {
    return this.#eachSector(disk, found, (offset, sector, writes) => {
      const isKept = (write: GuestWrite): boolean =>
        promise === 'answered' ? write.answered < Number.POSITIVE_INFINITY : write.isFlushed;
      const floor = writes.findLastIndex(isKept);
      const allowed = floor < 0 ? [sectorOf(this.#base[disk]!, offset)] : [];
      for (const write of writes.slice(Math.max(floor, 0))) allowed.push(sectorOf(write.bytes, offset - write.offset));
      if (allowed.some((bytes) => bytes.equals(sector))) return undefined;
      return `disk ${disk}: sector at ${offset} holds neither the last ${promise} write nor one behind it`;
    });
  }

  /**
   * Why `found` is not what the disks held at one moment between `from` and `to`; undefined if it is. A moment has every
   * write that was answered before it, and none that was sent behind it.
   */
  notOneMoment(found: readonly Buffer[], from: number, to: number): string | undefined {
    let [earliest, latest] = [from, to];
    for (const [disk, content] of found.entries()) {
      const fault = this.#eachSector(disk, content, (offset, sector, writes) => {
        const values = [
          sectorOf(this.#base[disk]!, offset),
          ...writes.map((write) => sectorOf(write.bytes, offset - write.offset)),
        ];
        const matches = [...values.keys()].filter((i) => values[i]!.equals(sector));
        if (matches.length === 0) return `disk ${disk}: sector at ${offset} holds what was never written there`;
        // Zeros over zeros tell nothing.
        if (matches.length > 1) return undefined;
        const included = writes[matches[0]! - 1];
        const excluded = writes[matches[0]!];
        if (included) earliest = Math.max(earliest, included.sent);
        if (excluded) latest = Math.min(latest, excluded.answered);
        return undefined;
      });
      if (fault !== undefined) return fault;
    }
    if (earliest <= latest) return undefined;
    return `it has a write that was sent at ${earliest} and lacks one that was answered at ${latest} (made between ${from} and ${to})`;
  }

  /** Calls `judge` for each sector that was written; all others must be as they were. */
  #eachSector(
    disk: number,
    found: Buffer,
    judge: (offset: number, sector: Buffer, writes: readonly GuestWrite[]) => string | undefined,
  ): string | undefined {
    const expected = Buffer.from(this.#base[disk]!);
    for (const [offset, writes] of this.#bySector(disk)) {
      const sector = sectorOf(found, offset);
      const fault = judge(offset, sector, writes);
      if (fault !== undefined) return fault;
      sector.copy(expected, offset);
    }
    if (found.equals(expected)) return undefined;
    const at = found.findIndex((byte, i) => byte !== expected[i]);
    return `disk ${disk}: byte ${at} differs, which nobody wrote (${found.length} bytes, expected ${expected.length})`;
  }

  #bySector(disk: number): ReadonlyMap<number, readonly GuestWrite[]> {
    const sectors = new Map<number, GuestWrite[]>();
    for (const write of this.#writes.filter((each) => each.disk === disk)) {
      for (let offset = write.offset; offset < write.offset + write.bytes.length; offset += SECTOR_BYTES) {
        const known = sectors.get(offset);
        if (known) known.push(write);
        else sectors.set(offset, [write]);
      }
    }
    return sectors;
  }
}

function sectorOf(bytes: Buffer, offset: number): Buffer {
  return bytes.subarray(offset, offset + SECTOR_BYTES);
}
