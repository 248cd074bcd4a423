/**
 * A simulated guest with its tracker: a disk of version numbers, change logs, the set of chunks that may differ from the replica, and
 * the 50 % rule. Both outlive the agent's process. Writes are caught up with whenever somebody looks.
 */
import type { ResyncReason, TrackingMode } from '../../../src/tracker/index.ts';
import type { Versions } from './replica-model.ts';
import type { World } from './world.ts';

export interface GuestPlan {
  readonly chunks: number;
  readonly diskBytes: number;
  /** What its logs grow by. */
  readonly bytesPerSecond: number;
}

interface ChangeLog {
  readonly id: string;
  readonly previous: string;
  readonly writes: Map<number, number>;
  bytes: number;
}

/** Chunks that change in one look, at most: enough to tell versions apart. */
const CHANGES_MAX = 3;

export class GuestModel {
  readonly plan: GuestPlan;
  readonly disk: Versions;
  readonly #world: World;
  #mode: TrackingMode = 'resync-required';
  #reason: ResyncReason | undefined;
  #running: ChangeLog | undefined;
  #closed: ChangeLog[] = [];
  #dirty: Set<number> = new Set();
  /** What a begun resync has to look at. */
  #copying: Set<number> = new Set();
  #isDirtyKnown = true;
  #logs = 0;
  #version = 0;
  #caughtUpMs = 0;
  /** How much more than planned it writes now. */
  burst = 1;
  #isOn = false;

  constructor(plan: GuestPlan, world: World) {
    this.plan = plan;
    this.disk = new Int32Array(plan.chunks);
    this.#world = world;
    this.#reason = { code: 'NOT_SYNCED', message: 'nothing was copied yet', sinceMs: world.nowMs() };
  }

  get mode(): TrackingMode {
    return this.#mode;
  }

  get reason(): ResyncReason | undefined {
    return this.#reason;
  }

  get logBytes(): number {
    return this.#closed.reduce((sum, { bytes }) => sum + bytes, this.#running?.bytes ?? 0);
  }

  /** Bytes that differ, as far as is known. */
  get backlogBytes(): number {
    return this.#mode === 'logging' ? this.logBytes : this.#dirty.size * this.chunkBytes;
  }

  get chunkBytes(): number {
    return this.plan.diskBytes / this.plan.chunks;
  }

  /** The guest starts to write; everything so far is in the replica. */
  start(head: string): void {
    this.#isOn = true;
    this.#caughtUpMs = this.#world.monotonicMs();
    this.#mode = 'logging';
    this.#reason = undefined;
    this.#dirty.clear();
    this.#running = this.#newLog(head);
  }

  catchUp(): void {
    const nowMs = this.#world.monotonicMs();
    const bytes = Math.round(((nowMs - this.#caughtUpMs) / 1000) * this.plan.bytesPerSecond * this.burst);
    if (!this.#isOn || bytes < 512) return;
    this.#caughtUpMs = nowMs;
    for (let left = Math.min(CHANGES_MAX, Math.ceil(bytes / 4096)); left > 0; left -= 1) {
      const chunk = this.#world.dice.below(this.disk.length);
      this.#version += 1;
      this.disk[chunk] = this.#version;
      this.#dirty.add(chunk);
      this.#running?.writes.set(chunk, this.#version);
    }
    if (!this.#running) return;
    this.#running.bytes += bytes;
    if (this.logBytes > this.plan.diskBytes / 2) this.giveWay('LOG_HALF_FULL', 'the logs take half of the disk');
  }

  /** Logs are given up; the set of dirty chunks goes on. */
  giveWay(code: ResyncReason['code'], message: string): void {
    if (!this.#isOn) return;
    if (code === 'MAP_LOST' || code === 'EDITED_OFFLINE') this.#isDirtyKnown = false;
    if (this.#mode === 'resync-required') return;
    this.#mode = 'resync-required';
    this.#reason = { code, message, sinceMs: this.#world.nowMs() };
    this.#running = undefined;
    this.#closed = [];
  }

  /** Closes the running log and begins the next. What is closed and not acknowledged, oldest first. */
  rotate(): { readonly logs: readonly ChangeLog[]; readonly content: Versions } {
    this.catchUp();
    const running = this.#running;
    if (!running) throw new Error('no log is running');
    this.#closed.push(running);
    this.#running = this.#newLog(running.id);
    return { logs: [...this.#closed], content: this.disk.slice() };
  }

  /** The replica has the logs up to this one. */
  acknowledge(head: string): void {
    const at = this.#closed.findIndex(({ id }) => id === head);
    if (at < 0) return;
    this.#closed.splice(0, at + 1);
    if (this.#mode !== 'logging') return;
    this.#dirty = new Set([...this.#closed, this.#running!].flatMap(({ writes }) => [...writes.keys()]));
  }

  /** Logs begin anew behind a fresh head. The chunks to look at; all of them where nobody knows. */
  beginResync(head: string): { readonly chunks: readonly number[]; readonly isFull: boolean } {
    this.catchUp();
    const isFull = !this.#isDirtyKnown;
    this.#copying = new Set(isFull ? this.disk.keys() : [...this.#copying, ...this.#dirty]);
    this.#dirty = new Set();
    this.#isDirtyKnown = true;
    this.#closed = [];
    this.#running = this.#newLog(head);
    this.#mode = 'resyncing';
    this.#reason = undefined;
    return { chunks: [...this.#copying], isFull };
  }

  /** The base has what differed. Whether logging goes on; else the logs gave way meanwhile. */
  endResync(): boolean {
    this.#copying.clear();
    if (this.#mode !== 'resyncing') return false;
    this.#mode = 'logging';
    return true;
  }

  #newLog(previous: string): ChangeLog {
    this.#logs += 1;
    return { id: `log-${this.#logs}`, previous, writes: new Map(), bytes: 0 };
  }
}
