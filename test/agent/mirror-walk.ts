/**
 * A machine with three stores, and whatever may happen to them, by dice: cycles, folding, retention, resyncs, rotated keys, mirrors
 * in every direction that are cut off anywhere, sides that take over. After each step every point of every store is what the guest
 * had, and a mirror that ended has brought the newest.
 */
import { apply, mirror, prune, resync, rotateKey } from '../../src/agent/index.ts';
import { LocalItem } from '../../src/agent/local-state.ts';
import type { ReplicaReference } from '../../src/agent/types.ts';
import { type ErrorCode, isBlockferryError } from '../../src/errors.ts';
import type { FailpointName } from '../../src/ports.ts';
import type { RecoveryPoint } from '../../src/replica/index.ts';
import { noise } from '../chunker/support.ts';
import { type GuestWrite, readPoint } from '../support/apply-lab.ts';
import { Dice } from '../support/dice.ts';
import { FIRST_URL, MirrorLab, SECOND_URL } from '../support/mirror-lab.ts';
import { CHUNK } from '../support/replica-lab.ts';

const URLS = [FIRST_URL, SECOND_URL, 'file:///memory/third'] as const;
const SECTOR = 512;
const CUT: readonly FailpointName[] = [
  ...(['mirror.after-intent', 'mirror.after-slots', 'mirror.after-pages', 'mirror.after-snapshots'] as const),
  ...(['mirror.after-log', 'sync.after-root', 'sync.after-anchor', 'key.after-keyring'] as const),
  ...(['apply.after-intent', 'apply.after-slots', 'apply.after-snapshots'] as const),
];
/** What may be refused on such a way. */
const REFUSED: readonly ErrorCode[] = [
  ...(['FAILPOINT', 'SPLIT_BRAIN', 'REPLICA_OTHER_SIDE', 'RESYNC_REQUIRED', 'POINT_NOT_FOUND'] as const),
  ...(['REPLICA_KEYRING', 'REPLICA_FOREIGN', 'ILLEGAL_STATE'] as const),
];

/** Two sides may give points the same id; never at the same time. */
const nameOf = ({ id, timeMs }: RecoveryPoint): string => `${id} ${timeMs}`;

class WalkLab extends MirrorLab {
  readonly #had: Map<string, readonly Buffer[]> = new Map();
  own: string = FIRST_URL;

  override async shipTo(url: string): Promise<void> {
    await super.shipTo(url);
    this.own = url;
  }

  override async remember(): Promise<void> {
    const newest = (await this.replicaAt(this.own)).record.root.points.at(-1)!;
    this.#had.set(
      nameOf(newest),
      this.disks.map((disk) => Buffer.from(disk)),
    );
  }

  hadAt(point: RecoveryPoint): readonly Buffer[] {
    return this.#had.get(nameOf(point))!;
  }

  override async checkAt(url: string): Promise<readonly string[]> {
    const replica = await this.replicaAt(url);
    const { points } = replica.record.root;
    for (const point of points) {
      for (const [i, expected] of this.hadAt(point).entries()) {
        const found = await readPoint(this.session, replica, point, i);
        if (!found.equals(expected)) throw new Error(`disk ${i} of point ${point.id} reads back differently at ${url}`);
      }
    }
    return points.map(({ id }) => id);
  }
}

class Walk {
  readonly item: WalkLab;
  readonly said: string[] = [];
  readonly #dice: Dice;
  /** Stores that have a replica. */
  readonly #made: Set<string> = new Set([FIRST_URL]);
  #seed = 1000;

  constructor(seed: number) {
    this.#dice = new Dice(seed);
    this.item = new WalkLab([noise(4 * CHUNK, seed), noise(2 * CHUNK, seed + 1)]);
  }

  /** One step; what it was. Refusals that may come are part of it. */
  async step(): Promise<void> {
    const steps = [
      ...Array.from({ length: 5 }, () => () => this.#ship()),
      ...Array.from({ length: 7 }, () => () => this.#mirrorOwn()),
      ...Array.from({ length: 2 }, () => () => this.#mirrorAny()),
      ...[() => this.#apply(), () => this.#apply(), () => this.#prune(), () => this.#prune()],
      ...[() => this.#rotate(), () => this.#resync(), () => this.#takeOver()],
    ];
    try {
      await this.#dice.pick(steps)();
    } catch (error) {
      if (!isBlockferryError(error, ...REFUSED)) throw error;
      this.said.push(`  ${error.code}`);
    } finally {
      this.item.lab.arm();
    }
    for (const url of this.#made) await this.item.checkAt(url);
  }

  async #ship(): Promise<void> {
    this.said.push('ship');
    const { sync } = (await this.item.replicaAt(this.item.own)).record.root;
    if (sync && sync.kind !== 'apply') return this.#resync();
    await this.item.ship(this.#writes());
  }

  #writes(): readonly GuestWrite[] {
    return Array.from({ length: this.#dice.between(1, 3) }, () => {
      const disk = this.#dice.below(2);
      const sectors = this.item.disks[disk]!.byteLength / SECTOR;
      const from = this.#dice.below(sectors);
      const lengthBytes = SECTOR * Math.min(sectors - from, this.#dice.oneIn(3) ? 200 : this.#dice.between(1, 8));
      this.#seed += 1;
      const bytes = this.#dice.oneIn(4) ? {} : { bytes: noise(lengthBytes, this.#seed) };
      return { disk, offset: from * SECTOR, lengthBytes, ...bytes };
    });
  }

  async #apply(): Promise<void> {
    const url = this.#dice.pick([...this.#made]);
    this.said.push(`apply ${url}`);
    await apply(this.item.session, await this.#reference(url));
  }

  async #prune(): Promise<void> {
    this.said.push('prune');
    const points = await this.item.pointsAt(this.item.own);
    await prune(this.item.session, 'web', { drop: new Set(points.filter(() => this.#dice.oneIn(2))) });
  }

  async #rotate(): Promise<void> {
    this.said.push('rotate');
    await rotateKey(this.item.session, 'web');
  }

  /** The guest writes while nobody tracks it. */
  async #resync(): Promise<void> {
    this.said.push('resync');
    const { item } = this;
    for (const { disk, offset, lengthBytes, bytes } of this.#writes()) {
      item.disks[disk]!.set(bytes ?? new Uint8Array(lengthBytes), offset);
    }
    for (const [i, disk] of item.disks.entries()) item.lab.disk(`disk${i}.img`, disk);
    await resync(item.session, 'web');
    await item.remember();
  }

  /** From the store of the owner, cut off now and then. */
  async #mirrorOwn(): Promise<void> {
    const { item } = this;
    const from = item.own;
    const to = this.#dice.pick(URLS.filter((url) => url !== from));
    const request = { from, to, applyFrom: this.#dice.pick([1, 3, 100]), discardNewer: this.#dice.oneIn(2) };
    const fault = this.#dice.oneIn(2) ? { name: this.#dice.pick(CUT), hit: this.#dice.between(1, 3) } : undefined;
    this.said.push(`mirror ${JSON.stringify({ ...request, ...fault })}`);
    const newest = (await item.pointsAt(from)).at(-1);
    item.lab.arm(fault);
    const [report] = await mirror(item.session, { name: 'web' }, request);
    this.#made.add(to);
    if (report!.pointId !== newest) throw new Error(`${to} has ${report!.pointId}, not ${newest}`);
  }

  /** Between any two: what is not to follow is refused. */
  async #mirrorAny(): Promise<void> {
    const from = this.#dice.pick([...this.#made]);
    const to = this.#dice.pick(URLS.filter((url) => url !== from));
    this.said.push(`mirror ${from} to ${to}`);
    await mirror(this.item.session, await this.#reference(from), { to });
    this.#made.add(to);
  }

  async #reference(url: string): Promise<ReplicaReference> {
    return { name: 'web', url, keys: (await this.#home.load()).keys };
  }

  get #home(): LocalItem {
    return new LocalItem(this.item.session.home, 'web', this.item.lab.ports.files);
  }

  /** Where nobody has a later owner. */
  async #takeOver(): Promise<void> {
    const { item } = this;
    const roots = await Promise.all([...this.#made].map(async (url) => (await item.replicaAt(url)).record.root));
    const epoch = Math.max(...roots.map(({ owner }) => owner.epoch));
    const url = this.#dice.pick([...this.#made].filter((_, i) => roots[i]!.owner.epoch === epoch));
    const { points } = (await item.replicaAt(url)).record.root;
    const point = this.#dice.pick(points);
    this.said.push(`take over ${url} at ${point.id}`);
    this.#seed += 1;
    await item.takeOver(url, point.id, this.#seed);
    for (const [i, disk] of item.hadAt(point).entries()) disk.copy(item.disks[i]!);
    await item.shipTo(url);
    await this.#home.save({ ...(await this.#home.load()), side: noise(16, this.#seed) });
    await item.commitAt(url, ({ owner }) => ({ owner: { ...owner, phase: 'replicating' } }));
    if (point !== points.at(-1) || this.#dice.oneIn(2)) await this.#resync();
  }
}

/** Walks so many steps. @throws with all of them, where one breaks a promise */
export async function walk(seed: number, steps: number, layout: 'sealed' | 'raw'): Promise<void> {
  const way = new Walk(seed);
  try {
    await way.item.protect(layout);
    for (let step = 0; step < steps; step += 1) await way.step();
  } catch (cause) {
    throw new Error(`seed ${seed}: ${cause instanceof Error ? cause.message : cause}\n${way.said.join('\n')}`, {
      cause,
    });
  } finally {
    way.item.close();
  }
}
