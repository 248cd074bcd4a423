/**
 * One tracked machine over many crashes: a raw disk and a VHDX that a guest writes through the real tracker, runs of the real
 * program that are killed, and the check of all that has to hold afterwards.
 *
 * A step lets the guest write, kills what it kills, and ends in `settle`, which asks:
 * - Do the disks hold every write that was flushed (a raw disk: that was answered)?
 * - Does logging go on, and was nothing read again but the chunks that were active?
 * - Is the next recovery point exactly the disks, is each one that came about meanwhile what they held at one moment, and
 *   are earlier ones what they were (one is looked at now and then)?
 * - Does nothing pile up beside the disks and in the item's directory? (The store: `checkStore`.)
 */
import { createHash } from 'node:crypto';
import { mkdtemp, open, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createDisk,
  failover,
  nodePorts,
  points,
  protect,
  resync,
  type Session,
  ship,
  status,
} from '../../dist/index.js';
import { LocalItem } from '../../src/agent/local-state.ts';
import { withOwn } from '../../src/agent/open-item.ts';
import { DirtyMap } from '../../src/tracker/dirty-map.ts';
import { loadTrackingState, mapPath, trackingDirectory } from '../../src/tracker/tracking-state.ts';
import { finished, type RunResult, startCli } from '../cli/support.ts';
import { Dice } from '../support/dice.ts';
import { type BurstOptions, Guest } from '../support/guest.ts';
import { GuestModel } from '../support/guest-model.ts';
import { type RunningTracker, startTracker } from '../support/tracker.ts';

const MIB = 1 << 20;
const SIZES = [16 * MIB + 3 * 512, 16 * MIB];
/** What a kill may lose without a flush: nothing of a file that is written in place, tables that wait of a VHDX. */
const PROMISES = ['answered', 'flushed'] as const;
/** Longer than any of these runs; one that hangs is a finding. */
const RUN_MS_MAX = 120_000;

export type Verb = 'ship' | 'apply' | 'resync';
export type Victim = Verb | 'track';

export interface TrackedLineageOptions {
  readonly url: (directory: string) => string;
  readonly layout: 'sealed' | 'raw';
  readonly seed: number;
}

/** What a run of steps saw. */
export interface Figures {
  kills: number;
  restored: number;
  /** Points of runs that a kill ended, and of others beside a guest that wrote: each was one moment. */
  moments: number;
  /** Of each start behind a kill of a tracker that was logging: what it read of the disks again. */
  readonly bridgedBytes: number[];
  /** Of each such start: what it may have read. */
  readonly activeBytes: number[];
}

export class TrackedLineage {
  readonly directory: string;
  readonly dice: Dice;
  readonly figures: Figures = { kills: 0, restored: 0, moments: 0, bridgedBytes: [], activeBytes: [] };
  readonly #options: TrackedLineageOptions;
  readonly #url: string;
  /** SHA-256 of the disks as each point has them. */
  readonly #contents: Map<string, string> = new Map();
  readonly #model = new GuestModel([]);
  /** How long an undisturbed run takes here, by verb. */
  readonly #runMs: Map<Verb, number> = new Map();
  #tracker: RunningTracker | undefined;
  #guest: Guest | undefined;
  /** When the guest began to write in this step. */
  #begun = 0;
  #story: string[] = [];

  static async begin(options: TrackedLineageOptions): Promise<TrackedLineage> {
    const directory = await mkdtemp(join(tmpdir(), 'bf-tkill-'));
    const lineage = new TrackedLineage(directory, options);
    await lineage.#protect();
    await lineage.#start();
    lineage.#model.rebase(await lineage.#guest!.contents());
    return lineage;
  }

  private constructor(directory: string, options: TrackedLineageOptions) {
    this.directory = directory;
    this.#url = options.url(directory);
    this.#options = options;
    this.dice = new Dice(options.seed);
  }

  async end(): Promise<void> {
    await this.#guest?.close();
    await this.#tracker?.kill();
    await rm(this.directory, { recursive: true, force: true });
  }

  /** What happened since the last `settle`, for whoever has to understand a failure. */
  get story(): string {
    return `seed ${this.#options.seed}: ${this.#story.join('; ')}\n${this.#tracker?.talk() ?? ''}`;
  }

  /** The guest writes from here on, until `settle`. */
  write(burst: Partial<BurstOptions> = {}): void {
    this.#begun = this.#model.now();
    this.#guest!.start(burst);
  }

  /** The guest writes so much and no more until `settle`. */
  async fill(burst: Partial<BurstOptions>): Promise<void> {
    this.#begun = this.#model.now();
    await this.#guest!.fill(burst);
  }

  /** Runs a verb to its end, or to a kill -9 at a random moment of it, or to an armed failpoint. */
  async run(verb: Verb, options: { readonly kill?: boolean; readonly failpoints?: string } = {}): Promise<RunResult> {
    const env = options.failpoints === undefined ? {} : { BLOCKFERRY_FAILPOINTS: options.failpoints };
    const startedMs = performance.now();
    const child = startCli([verb, 'vm', '--home', this.#home, '--json', '--workers', '1'], { env });
    const killAfterMs = options.kill ? this.#moment(verb) : RUN_MS_MAX;
    const timer = setTimeout(() => child.kill('SIGKILL'), killAfterMs);
    const result = await finished(child);
    clearTimeout(timer);
    const elapsedMs = performance.now() - startedMs;
    const isKilled = result.signal === 'SIGKILL';
    if (isKilled && elapsedMs >= RUN_MS_MAX) throw new Error(`${verb} did not end: ${result.stderr}`);
    if (isKilled) this.figures.kills += 1;
    else this.#runMs.set(verb, elapsedMs);
    const end = isKilled ? 'killed' : `exit ${result.code} ${result.stderr.trim().split('\n').at(-1)}`;
    this.#story.push(`${verb} ${options.failpoints ?? ''} ${end} after ${Math.round(elapsedMs)} ms`);
    return result;
  }

  /** kill -9 of the tracker at a random moment of the next `ofMs`, or of a run of `during`. */
  async killTracker({ ofMs = 400, during }: { readonly ofMs?: number; readonly during?: Verb | undefined } = {}) {
    const [waitMs, run] = during ? [this.#moment(during), this.run(during)] : [this.dice.below(ofMs), undefined];
    await new Promise((resolve) => setTimeout(resolve, waitMs));
    await this.#tracker!.kill();
    this.figures.kills += 1;
    this.#story.push(`tracker killed after ${Math.round(waitMs)} ms`);
    await run;
  }

  /**
   * Ends the tracker (in order, or by a kill) and starts it with an armed failpoint; the guest writes and is shipped, then
   * the tracker ends in order. Returns whether the failpoint ended it.
   */
  async crashTrackerAt(failpoints: string, before: 'clean' | 'killed'): Promise<boolean> {
    await this.#guest!.stop();
    await this.#guest!.flush();
    await (before === 'clean' ? this.#tracker!.stop() : this.#tracker!.kill());
    this.#story.push(`tracker ended: ${before}; ${failpoints}`);
    try {
      await this.#start({ BLOCKFERRY_FAILPOINTS: failpoints });
    } catch (error) {
      this.#story.push(`tracker did not start: ${error}`);
      this.figures.kills += 1;
      return true;
    }
    this.write();
    await new Promise((resolve) => setTimeout(resolve, 60));
    await ship(this.#session(), 'vm').catch((error) => this.#story.push(String(error)));
    await this.#guest!.stop();
    const { child } = this.#tracker!;
    if (child.exitCode === null && child.signalCode === null) await this.#tracker!.stop();
    const isKilled = child.signalCode === 'SIGKILL';
    if (isKilled) this.figures.kills += 1;
    return isKilled;
  }

  /** Ends the step: whatever was killed is started again, and all that has to hold is checked. */
  async settle(): Promise<void> {
    const { child } = this.#tracker!;
    const isGone = child.exitCode !== null || child.signalCode !== null;
    if (!isGone && this.dice.oneIn(2)) await this.#shipMeanwhile();
    await this.#guest!.stop();
    const ended = this.#model.now();
    const contents = isGone ? await this.#restart() : await this.#guest!.contents();
    for (const [disk, content] of contents.entries()) {
      const loss = this.#model.loss(disk, content, isGone ? PROMISES[disk]! : 'answered');
      if (loss !== undefined) throw new Error(loss);
    }
    const pointId = await this.#makeCurrent();
    await this.#checkPoints(pointId, digest(contents), ended);
    await this.#checkLeftovers();
    this.#model.rebase(contents);
    this.#story = [];
  }

  get #home(): string {
    return join(this.directory, 'home');
  }

  get #disks(): readonly string[] {
    return ['vm.raw', 'vm.vhdx'].map((name) => join(this.directory, name));
  }

  get #item(): LocalItem {
    return new LocalItem(this.#home, 'vm', nodePorts().files);
  }

  #session(home: string = this.#home): Session {
    return { ports: nodePorts(), home, environment: {}, workers: 1 };
  }

  /** As a run by somebody who has the store and the key alone. */
  #elsewhere(): Session {
    return this.#session(join(this.directory, 'elsewhere'));
  }

  #reference() {
    const key = join(this.#item.directory, 'vm.key');
    return { name: 'vm', url: this.#url, keys: [{ type: 'key-file' as const, path: key }] };
  }

  async #protect(): Promise<void> {
    const [raw, vhdx] = this.#disks as [string, string];
    const file = await open(raw, 'wx');
    await file.truncate(SIZES[0]!);
    await file.write(this.dice.bytes(3 * MIB), 0, 3 * MIB, 2 * MIB);
    await file.close();
    const writer = await createDisk(vhdx, {
      ...{ format: 'vhdx', subformat: 'dynamic', virtualSizeBytes: SIZES[1]!, blockSizeBytes: MIB, ports: nodePorts() },
    });
    await writer.write(this.dice.bytes(3 * MIB), 5 * MIB);
    await writer.finish();
    const { layout } = this.#options;
    const { pointId } = await protect(this.#session(), {
      ...{ name: 'vm', disks: this.#disks, url: this.#url, layout, chunkBytes: 64 * 1024, keys: [] },
    });
    this.#contents.set(pointId, digest(await this.#restore(pointId)));
  }

  async #start(env: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.#guest?.close();
    this.#tracker = await startTracker('vm', this.#home, { env });
    const path = this.#tracker.listening.listen.slice('unix:'.length);
    this.#guest = await Guest.connect({ path }, SIZES, this.#model, this.dice);
  }

  /** A moment of a run of `verb`: behind the start of the program, before its likely end. */
  #moment(verb: Verb): number {
    const runMs = this.#runMs.get(verb) ?? 1000;
    return runMs * (0.3 + (0.75 * this.dice.below(1000)) / 1000);
  }

  /** Starts the tracker behind its end; returns what the disks hold. */
  async #restart(): Promise<readonly Buffer[]> {
    const directory = trackingDirectory(this.#item.directory);
    const state = await loadTrackingState(directory, nodePorts().files);
    const activeBytes = await this.#activeBytes(directory);
    await this.#start();
    const contents = await this.#guest!.contents();
    const { mode, reason } = this.#tracker!.listening.tracking;
    this.#story.push(`tracker started again: ${state?.mode} before, ${mode} now`);
    if (mode !== state?.mode) throw new Error(`was ${state?.mode}, is ${mode}: ${reason?.message}`);
    if (mode !== 'logging' || state.clean) return contents;
    const bridged = [...this.#tracker!.talk().matchAll(/(\d+) bytes were read and logged again/g)];
    const bridgedBytes = bridged.reduce((sum, [, bytes]) => sum + Number(bytes), 0);
    this.figures.bridgedBytes.push(bridgedBytes);
    this.figures.activeBytes.push(activeBytes);
    if (bridgedBytes > activeBytes) throw new Error(`${bridgedBytes} bytes were read, ${activeBytes} were active`);
    return contents;
  }

  /** Bytes of the chunks that the dirty maps, as the tracker left them, call active. */
  async #activeBytes(directory: string): Promise<number> {
    const description = await this.#item.loadDescription();
    let activeBytes = 0;
    for (const { id, guid: diskGuid, virtualSizeBytes: sizeBytes, chunkBytes } of description!.disks) {
      const options = { sizeBytes, chunkBytes, diskGuid, ports: nodePorts() };
      const map = await DirtyMap.open(mapPath(directory, id), options);
      for (const { from, to } of map.runs('active')) {
        activeBytes += Math.min(to * chunkBytes, sizeBytes) - from * chunkBytes;
      }
      await map.abandon();
    }
    return activeBytes;
  }

  /** The next cycle; a resync where a step left one unfinished. Returns the id of its point. */
  async #makeCurrent(): Promise<string> {
    const before = await this.#mode();
    const cycle = before === 'logging' ? ship(this.#session(), 'vm') : resync(this.#session(), 'vm');
    const { pointId } = await cycle;
    const after = await this.#mode();
    if (after !== 'logging') throw new Error(`after ${pointId} the tracker is ${after}, before it was ${before}`);
    return pointId;
  }

  /** A cycle while the guest writes, where no resync is unfinished. */
  async #shipMeanwhile(): Promise<void> {
    if ((await this.#mode()) === 'logging') this.#story.push(`shipped ${(await ship(this.#session(), 'vm')).pointId}`);
  }

  async #mode(): Promise<string | undefined> {
    return (await status(this.#session(), 'vm'))[0]?.tracking?.mode;
  }

  async #checkPoints(current: string, currentDigest: string, ended: number): Promise<void> {
    const ids = (await points(this.#elsewhere(), this.#reference())).map(({ id }) => id);
    if (ids.at(-1) !== current) throw new Error(`the newest point is ${ids.at(-1)}, not ${current}`);
    const lost = [...this.#contents.keys()].slice(-100).filter((id) => !ids.includes(id));
    if (lost.length > 0) throw new Error(`points ${lost.join(', ')} are gone`);
    const known = ids.filter((id) => this.#contents.has(id));
    for (const id of ids) {
      if (this.#contents.has(id)) continue;
      const restored = await this.#restore(id);
      const found = digest(restored);
      this.#contents.set(id, found);
      if (id === current) {
        if (found !== currentDigest) throw new Error(`point ${id} is not what the disks hold`);
        continue;
      }
      // A resync that began behind the kill copied the disks at rest, as the kill left them.
      if (found === currentDigest) continue;
      const fault = this.#model.notOneMoment(restored, this.#begun, ended);
      if (fault !== undefined) throw new Error(`point ${id}, made while the guest wrote, is no moment: ${fault}`);
      this.figures.moments += 1;
    }
    if (!this.dice.oneIn(3)) return;
    const sample = this.dice.pick(known);
    const found = digest(await this.#restore(sample));
    if (found !== this.#contents.get(sample)) throw new Error(`point ${sample} is not what it was`);
  }

  async #restore(point: string): Promise<readonly Buffer[]> {
    const outDirectory = join(this.directory, 'out');
    const { disks } = await failover(this.#elsewhere(), this.#reference(), { point, outDirectory, format: 'raw' });
    const contents: Buffer[] = [];
    for (const { path } of disks) contents.push(await readFile(path));
    await rm(outDirectory, { recursive: true });
    this.figures.restored += 1;
    return contents;
  }

  /** Beside the disks there are only the running logs, in the item's directory is nothing temporary. */
  async #checkLeftovers(): Promise<void> {
    const logs = (await readdir(this.directory)).filter((name) => name.endsWith('.hrl'));
    if (logs.length !== SIZES.length) throw new Error(`logs beside the disks: ${logs.join(', ')}`);
    const local = await readdir(this.#item.directory, { recursive: true });
    const temporary = local.filter((name) => name.endsWith('.tmp'));
    if (temporary.length > 0) throw new Error(`in the item's directory: ${temporary.join(', ')}`);
  }

  /** Folds all logs; then the store has no log that the root does not name. */
  async checkStore(): Promise<void> {
    const { code, stderr } = await this.run('apply');
    if (code !== 0) throw new Error(`apply: ${stderr}`);
    const unnamed = await withOwn(this.#session(), 'vm', async ({ replica }) => {
      const keys: string[] = [];
      for await (const key of replica.store.list('logs/')) keys.push(key);
      return keys.length - replica.record.root.logs.length;
    });
    if (unnamed !== 0) throw new Error(`${unnamed} logs of the store are in no root`);
  }
}

function digest(contents: readonly Buffer[]): string {
  const hash = createHash('sha256');
  for (const content of contents) hash.update(content);
  return hash.digest('hex');
}
