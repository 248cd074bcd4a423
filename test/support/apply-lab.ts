/**
 * An item with shipped logs, for tests: guest writes go to a model and into the store as logs, made of frames without the
 * verb that ships. Every recovery point can be read back, without merge and fold, and compared with what the guest had.
 */

import { protect } from '../../src/agent/index.ts';
import { LocalItem } from '../../src/agent/local-state.ts';
import { readAccess, type WritableReplica, withOwn, withWorkers, withWriter } from '../../src/agent/open-item.ts';
import type { Session } from '../../src/agent/types.ts';
import {
  createCodec,
  LOG_FRAME_BYTES_MAX,
  LogFrameBuilder,
  LogFrameCipher,
  type LogPiece,
} from '../../src/chunker/index.ts';
import { randomGuid } from '../../src/guid.ts';
import { type ApplyResult, type ApplySetup, apply as applyLogs } from '../../src/replica/apply.ts';
import {
  baselineOf,
  Committer,
  isProcessed,
  logsOf,
  newestLog,
  type RecoveryPoint,
  type Replica,
  workerSetup,
} from '../../src/replica/index.ts';
import { logKey } from '../../src/replica/layout.ts';
import { readShippedLog } from '../../src/replica/shipped-log.ts';
import type { WorkerPool } from '../../src/workers/index.ts';
import { InProcessPool } from './in-process-pool.ts';
import { CHUNK, Lab, readReplicaDisk, STORE_URL } from './replica-lab.ts';

/** A guest's write; without bytes one of zeros. */
export interface GuestWrite {
  readonly disk: number;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly bytes?: Uint8Array;
}

const SECTOR = 512;
const UNTOUCHED = 0;
const DATA = 1;
const ZEROS = 2;
/** Small frames, so that a few writes make several. */
const FRAME_PIECES = 3;

export class ApplyLab {
  readonly lab: Lab = new Lab();
  /** What the guest has now. */
  readonly disks: readonly Buffer[];
  /** What it had at each point. */
  readonly points: Map<string, readonly Buffer[]> = new Map();

  constructor(disks: readonly Uint8Array[]) {
    this.disks = disks.map((disk) => Buffer.from(disk));
  }

  get session(): Session {
    return this.lab.session;
  }

  async protect(layout: 'sealed' | 'raw' = 'sealed'): Promise<void> {
    await protect(this.session, {
      name: 'web',
      disks: this.#paths(),
      url: STORE_URL,
      chunkBytes: CHUNK,
      layout,
      keys: [],
    });
    await this.remember();
  }

  /** Writes the disk images as the guest has them. */
  #paths(): readonly string[] {
    return this.disks.map((disk, i) => this.lab.disk(`disk${i}.img`, disk));
  }

  /** The newest point is what the guest has now. */
  async remember(): Promise<void> {
    const { root } = (await this.lab.replica()).record;
    this.points.set(
      root.points.at(-1)!.id,
      this.disks.map((disk) => Buffer.from(disk)),
    );
  }

  /** The guest writes, and a cycle ships it. */
  async ship(writes: readonly GuestWrite[], consistency: 'crash' | 'app' = 'crash'): Promise<void> {
    const marks = this.disks.map((disk) => new Uint8Array(disk.byteLength / SECTOR));
    for (const { disk, offset, lengthBytes, bytes } of writes) {
      if (bytes) this.disks[disk]!.set(bytes, offset);
      else this.disks[disk]!.fill(0, offset, offset + lengthBytes);
      marks[disk]!.fill(bytes ? DATA : ZEROS, offset / SECTOR, (offset + lengthBytes) / SECTOR);
    }
    const pieces = marks.flatMap((sectors, disk) => [...this.#pieces(disk, sectors)]);
    await shipPieces(this.session, pieces, consistency);
    await this.remember();
  }

  *#pieces(disk: number, sectors: Uint8Array): Generator<LogPiece> {
    for (let from = 0; from < sectors.length; ) {
      let to = from + 1;
      while (to < sectors.length && sectors[to] === sectors[from]) to += 1;
      const place = { disk, offset: from * SECTOR, lengthBytes: (to - from) * SECTOR };
      if (sectors[from] === ZEROS) yield place;
      else if (sectors[from] !== UNTOUCHED) {
        yield { ...place, bytes: this.disks[disk]!.subarray(place.offset, place.offset + place.lengthBytes) };
      }
      from = to;
    }
  }

  /**
   * Keeps everything but the disk images as it is now: what it returns brings it back. A test of a hundred faults need not make what
   * they happen to a hundred times.
   */
  keep(): () => void {
    const bringBack = this.lab.keep();
    const disks = this.disks.map((disk) => Buffer.from(disk));
    const points = [...this.points];
    return () => {
      bringBack();
      for (const [i, disk] of disks.entries()) this.disks[i]!.set(disk);
      this.points.clear();
      for (const [id, content] of points) this.points.set(id, content);
    };
  }

  apply(options: { readonly changedPagesMax?: number } = {}): Promise<ApplyResult> {
    return applyItem(this.session, options);
  }

  /** Reads every committed point back. */
  async check(): Promise<void> {
    const replica = await this.lab.replica();
    for (const point of replica.record.root.points) {
      for (const [i, expected] of this.points.get(point.id)!.entries()) {
        const found = await readPoint(this.session, replica, point, i);
        if (!found.equals(expected)) throw new Error(`disk ${i} of point ${point.id} reads back differently`);
      }
    }
  }

  /** The newest point is processed and what the guest has, and so is the live base. */
  async checkApplied(): Promise<void> {
    await this.check();
    const replica = await this.lab.replica();
    const { root } = replica.record;
    const newest = root.points.at(-1)!;
    if (root.sync || !isProcessed(root, newest)) throw new Error(`point ${newest.id} is not processed`);
    for (const [i, expected] of this.disks.entries()) {
      const { tables } = root.disks[i]!;
      const found = await readReplicaDisk(replica, i, { tables, live: true }, this.lab.ports);
      if (!found.equals(expected)) throw new Error(`the live base of disk ${i} reads back differently`);
    }
  }

  close(): void {
    this.lab.close();
  }
}

type ApplyOptions = Pick<ApplySetup, 'changedPagesMax' | 'onProgress'>;

/** Applies as an operation does it. */
export function applyItem(session: Session, options: ApplyOptions = {}): Promise<ApplyResult> {
  return withOwn(session, 'web', (own) => applyOwn(session, own, options));
}

/** The same over a replica that was opened before. */
export function applyOwn(session: Session, own: WritableReplica, options: ApplyOptions = {}): Promise<ApplyResult> {
  return withWorkers(session, own.replica, (pool) =>
    withWriter(session, own, ({ committer, session: writer }) =>
      applyLogs({
        ...{ committer, session: writer, pool, ports: session.ports, signal: writer.signal },
        access: readAccess(session),
        ...options,
      }),
    ),
  );
}

/** Puts a log of these pieces (in order) into the store, and commits a point that ends with it. */
export async function shipPieces(
  session: Session,
  pieces: readonly LogPiece[],
  consistency: 'crash' | 'app' = 'crash',
): Promise<void> {
  const { ports } = session;
  const item = new LocalItem(session.home, 'web', ports.files);
  await withOwn(session, 'web', async ({ replica }) => {
    const { root } = replica.record;
    const id = ports.random.bytes(16);
    const seq = newestLog(root) + 1;
    const { frames, dataBytes } = sealFrames(replica, { seq, id }, pieces, (n) => ports.random.bytes(n));
    const object = Buffer.concat(frames);
    await replica.store.put(logKey({ seq, id }), object);
    const log = { seq, id, frames: frames.length, sizeBytes: object.byteLength, dataBytes };
    const committer = new Committer(replica, 'test', (anchor) => item.saveAnchor(anchor), ports);
    await committer.commit(async ({ generation, points, logs, baselines, disks }) => {
      const point: RecoveryPoint = {
        id: `p${generation + 1}`,
        timeMs: ports.clock.nowMs(),
        consistency,
        generation: generation + 1,
        baseline: baselines.at(-1)!.generation,
        log: seq,
      };
      const heads = disks.map((disk) => ({ ...disk, head: randomGuid(ports.random.bytes(16)) }));
      return { disks: heads, points: [...points, point], logs: [...logs, log] };
    });
  });
}

function sealFrames(
  { description, keyring }: Replica,
  log: { readonly seq: number; readonly id: Uint8Array },
  pieces: readonly LogPiece[],
  randomBytes: (lengthBytes: number) => Uint8Array,
): { readonly frames: readonly Buffer[]; readonly dataBytes: number } {
  const { epochs, currentEpoch } = keyring;
  const cipher = new LogFrameCipher({ replicaId: description.replicaId, epochs, currentEpoch, randomBytes }, log);
  const codec = createCodec(description.compression);
  const builder = new LogFrameBuilder();
  const frames: Buffer[] = [];
  let dataBytes = 0;
  for (let at = 0; at < pieces.length; at += FRAME_PIECES) {
    builder.begin();
    for (const { disk, offset, lengthBytes, bytes } of pieces.slice(at, at + FRAME_PIECES)) {
      if (bytes) {
        builder.room(lengthBytes).set(bytes);
        builder.addData(disk, offset, lengthBytes);
      } else builder.addZeros(disk, offset, lengthBytes);
    }
    dataBytes += builder.dataBytes;
    const into = Buffer.alloc(LOG_FRAME_BYTES_MAX);
    frames.push(Buffer.from(into.subarray(0, cipher.seal(builder.finish(), frames.length, codec, into))));
  }
  return { frames, dataBytes };
}

/** All bytes of a disk at a point: its baseline, and its logs over that one after the other. */
export async function readPoint(
  session: Session,
  replica: Replica,
  point: RecoveryPoint,
  disk: number,
): Promise<Buffer> {
  const { root } = replica.record;
  const content = await readReplicaDisk(replica, disk, baselineOf(root, point).disks[disk]!, session.ports);
  const pool = new InProcessPool(workerSetup(replica)) as unknown as WorkerPool;
  for (const log of logsOf(root, point)) {
    for await (const piece of readShippedLog(replica, log, { ...readAccess(session), pool })) {
      if (piece.disk !== disk) continue;
      if (piece.bytes) content.set(piece.bytes, piece.offset);
      else content.fill(0, piece.offset, piece.offset + piece.lengthBytes);
    }
  }
  return content;
}
