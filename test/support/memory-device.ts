/** A BlockDevice in memory: its content is one buffer, which is the model. Calls can be recorded, delayed and made to fail. */
import type { BlockDevice, StatusExtent, ZeroRequest } from '../../src/tracker/nbd/index.ts';
import { ALLOCATION_HOLE, ALLOCATION_ZERO, DIRTY } from '../../src/tracker/nbd/index.ts';

/** Space is given and taken, and changes are tracked, in units of this size. */
export const UNIT_BYTES = 65_536;

export interface DeviceCall {
  readonly name: 'read' | 'write' | 'zero' | 'flush' | 'allocation' | 'dirty';
  readonly offset: number;
  readonly lengthBytes: number;
  readonly fua?: boolean;
  readonly unmap?: boolean;
}

export interface MemoryDeviceOptions {
  readonly name?: string;
  readonly sizeBytes?: number;
  readonly minimumBlockBytes?: number;
  readonly zeroIsFast?: boolean;
}

export class MemoryDevice implements BlockDevice {
  readonly name: string;
  readonly sizeBytes: number;
  readonly minimumBlockBytes: number;
  readonly preferredBlockBytes: number = 4096;
  readonly zeroIsFast: boolean;
  readonly content: Buffer;
  /** Called before each call does anything: it waits for the promise, and fails with it. */
  gate: ((call: DeviceCall) => Promise<void> | undefined) | undefined;
  readonly #allocated: Uint8Array;
  readonly #dirty: Uint8Array;

  constructor({
    name = 'disk',
    sizeBytes = 1024 * 1024,
    minimumBlockBytes = 512,
    zeroIsFast = true,
  }: MemoryDeviceOptions = {}) {
    this.name = name;
    this.sizeBytes = sizeBytes;
    this.minimumBlockBytes = minimumBlockBytes;
    this.zeroIsFast = zeroIsFast;
    this.content = Buffer.alloc(sizeBytes);
    this.#allocated = new Uint8Array(Math.ceil(sizeBytes / UNIT_BYTES));
    this.#dirty = new Uint8Array(this.#allocated.length);
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    if (this.gate !== undefined) await this.gate({ name: 'read', offset, lengthBytes: into.byteLength });
    this.#requireInside(offset, into.byteLength);
    this.content.copy(into, 0, offset, offset + into.byteLength);
  }

  async write(bytes: Uint8Array, offset: number, fua: boolean): Promise<void> {
    const { byteLength } = bytes;
    if (this.gate !== undefined) await this.gate({ name: 'write', offset, lengthBytes: byteLength, fua });
    this.#requireInside(offset, byteLength);
    this.content.set(bytes, offset);
    const [first, end] = unitsOf(offset, byteLength);
    this.#allocated.fill(1, first, end);
    this.#dirty.fill(1, first, end);
  }

  async zero(offset: number, lengthBytes: number, { unmap, fua }: ZeroRequest): Promise<void> {
    if (this.gate !== undefined) await this.gate({ name: 'zero', offset, lengthBytes, unmap, fua });
    this.#requireInside(offset, lengthBytes);
    this.content.fill(0, offset, offset + lengthBytes);
    const [first, end] = unitsOf(offset, lengthBytes);
    this.#dirty.fill(1, first, end);
    if (unmap) this.#allocated.fill(0, Math.ceil(offset / UNIT_BYTES), Math.floor((offset + lengthBytes) / UNIT_BYTES));
    else this.#allocated.fill(1, first, end);
  }

  async flush(): Promise<void> {
    if (this.gate !== undefined) await this.gate({ name: 'flush', offset: 0, lengthBytes: 0 });
  }

  async *allocation(offset: number, lengthBytes: number): AsyncGenerator<StatusExtent> {
    if (this.gate !== undefined) await this.gate({ name: 'allocation', offset, lengthBytes });
    this.#requireInside(offset, lengthBytes);
    yield* pieces(offset, lengthBytes, (unit) => (this.#allocated[unit] === 1 ? 0 : ALLOCATION_HOLE | ALLOCATION_ZERO));
  }

  async *dirty(offset: number, lengthBytes: number): AsyncGenerator<StatusExtent> {
    if (this.gate !== undefined) await this.gate({ name: 'dirty', offset, lengthBytes });
    this.#requireInside(offset, lengthBytes);
    yield* pieces(offset, lengthBytes, (unit) => (this.#dirty[unit] === 1 ? DIRTY : 0));
  }

  /** As if the replica had got everything. */
  clean(): void {
    this.#dirty.fill(0);
  }

  #requireInside(offset: number, lengthBytes: number): void {
    if (offset < 0 || lengthBytes < 0 || offset + lengthBytes > this.sizeBytes) {
      throw new RangeError(`${lengthBytes} bytes at ${offset} of ${this.sizeBytes}`);
    }
  }
}

function unitsOf(offset: number, lengthBytes: number): readonly [number, number] {
  return [Math.floor(offset / UNIT_BYTES), Math.ceil((offset + lengthBytes) / UNIT_BYTES)];
}

/** The range unit by unit: whoever takes it joins what is alike. */
function* pieces(offset: number, lengthBytes: number, flagsOf: (unit: number) => number): Generator<StatusExtent> {
  const end = offset + lengthBytes;
  for (let at = offset; at < end; ) {
    const unit = Math.floor(at / UNIT_BYTES);
    const next = Math.min(end, (unit + 1) * UNIT_BYTES);
    yield { lengthBytes: next - at, flags: flagsOf(unit) };
    at = next;
  }
}
