/**
 * A disk that is brought to a recovery point through a stage: the replica and its guest (ApplyLab), an image of the disk as
 * another side left it, and each step of a delta failback as an operation would call it.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { nodePorts } from '../../src/host/index.ts';
import type { Ports } from '../../src/ports.ts';
import { workerSetup } from '../../src/replica/index.ts';
import {
  catchUp,
  completeStage,
  type DeltaSetup,
  type LayCounts,
  layStage,
  openStage,
  type ProofCounts,
  proveDisk,
  type StageCounts,
  type StageSetup,
  stageDelta,
} from '../../src/replica/stage/index.ts';
import { Lanes } from '../../src/transport/index.ts';
import { createDisk, type DiskFormat, openDisk, openDiskForWriting } from '../../src/vhd/index.ts';
import type { WorkerPool } from '../../src/workers/index.ts';
import type { ApplyLab } from './apply-lab.ts';
import { InProcessPool } from './in-process-pool.ts';

const real = nodePorts();

export class StageLab {
  readonly item: ApplyLab;
  readonly disk: number;
  readonly format: DiskFormat;
  readonly path: string;
  readonly directory: string;
  controller: AbortController = new AbortController();

  constructor(item: ApplyLab, disk: number, format: DiskFormat = 'raw') {
    this.item = item;
    this.disk = disk;
    this.format = format;
    this.path = `${item.lab.directory}/target${disk}.${format}`;
    this.directory = `${this.path}.failback`;
  }

  /** Makes the image that is to be brought back; runs of zeros in it are not allocated. */
  async makeTarget(content: Uint8Array): Promise<void> {
    await real.files.remove(this.path);
    const writer = await createDisk(this.path, {
      format: this.format,
      subformat: this.format === 'raw' ? 'fixed' : 'dynamic',
      virtualSizeBytes: content.byteLength,
      azureSize: false,
      ports: real,
    });
    for (let at = 0; at < content.byteLength; at += 4096) {
      const part = content.subarray(at, at + 4096);
      if (part.some((byte) => byte !== 0)) await writer.write(part, at);
    }
    await writer.finish();
  }

  /** All that a guest would read of it. */
  async read(): Promise<Buffer> {
    const disk = await openDisk(this.path, { ports: real, format: this.format });
    const bytes = Buffer.alloc(disk.info.virtualSizeBytes);
    await disk.read(bytes, 0);
    await disk.close();
    return bytes;
  }

  sha256(): string {
    return createHash('sha256').update(readFileSync(this.path)).digest('hex');
  }

  /** The newest processed point is what it is brought to. */
  async stage(options: Partial<DeltaSetup> = {}): Promise<StageCounts> {
    return this.#withTarget((setup) => stageDelta({ ...setup, ...options }));
  }

  async catchUp(): Promise<StageCounts> {
    return this.#withTarget(catchUp);
  }

  async complete(): Promise<void> {
    await this.withStage((setup) => completeStage(setup));
  }

  async lay(): Promise<LayCounts> {
    return this.withStage(async (setup) => {
      const target = await openDiskForWriting(this.path, { ports: real, format: this.format });
      try {
        return await layStage({ ...setup, target });
      } finally {
        await target.close();
      }
    });
  }

  async prove(): Promise<ProofCounts> {
    const { replica, point, pool, access } = await this.#access();
    const target = await openDisk(this.path, { ports: real, format: this.format });
    try {
      return await proveDisk({ replica, point, disk: this.disk, target, pool, access });
    } finally {
      await target.close();
    }
  }

  /** All of it, from whatever a run before it left. */
  async bringBack(): Promise<void> {
    const phase = await this.withStage(async ({ stage }) => stage.phase);
    if (phase === 'staging') {
      await this.stage();
      await this.complete();
    }
    await this.lay();
    await this.prove();
  }

  async withStage<T>(work: (setup: StageSetup) => Promise<T>): Promise<T> {
    const access = await this.#access();
    const { replica, ports } = access;
    const stage = await openStage({ directory: this.directory, replica, disk: this.disk, files: ports.files });
    try {
      return await work({ stage, ...access });
    } finally {
      await stage.close();
    }
  }

  #withTarget<T>(work: (setup: DeltaSetup) => Promise<T>): Promise<T> {
    return this.withStage(async (setup) => {
      const target = await openDisk(this.path, { ports: real, format: this.format });
      try {
        return await work({ ...setup, target });
      } finally {
        await target.close();
      }
    });
  }

  async #access(): Promise<Omit<StageSetup, 'stage'> & { readonly ports: Ports }> {
    const { ports } = this.item.lab;
    const { signal } = this.controller;
    const replica = await this.item.lab.replica();
    const point = replica.record.root.points.at(-1)!;
    const pool = new InProcessPool(workerSetup(replica), { signal }) as unknown as WorkerPool;
    const access = { lanes: new Lanes({ clock: ports.clock, limit: 8 }), ports, signal };
    return { replica, point, pool, access, ports };
  }
}
