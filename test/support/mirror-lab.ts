/**
 * An item with a second store, for tests: what is shipped to the first is mirrored, and every point of the second is read back from
 * it alone and compared with what the guest had.
 */
import { mirror } from '../../src/agent/index.ts';
import { LocalItem } from '../../src/agent/local-state.ts';
import { readAccess, sessionLanes, withWorkers, withWriter } from '../../src/agent/open-item.ts';
import type { MirrorReport, MirrorRequest } from '../../src/agent/types.ts';
import {
  type Anchor,
  Committer,
  type MirrorResult,
  type MirrorSetup,
  mirror as mirrorReplica,
  openReplica,
  type Replica,
  type Root,
  type RootChange,
  takeOver,
} from '../../src/replica/index.ts';
import { noise } from '../chunker/support.ts';
import { ApplyLab, readPoint } from './apply-lab.ts';
import { CHUNK, readReplicaDisk, STORE_URL } from './replica-lab.ts';

export const FIRST_URL: string = STORE_URL;
export const SECOND_URL = 'file:///memory/second';

const LEASE_ID = '00000000-0000-4000-8000-000000000001';

export class MirrorLab extends ApplyLab {
  /** The store that the home ships to. */
  #own: string = FIRST_URL;

  /** The home replicates to this store from now on, as a commit of a failover makes it. */
  async shipTo(url: string): Promise<void> {
    const item = this.#item;
    await item.save({ ...(await item.load()), url });
    await this.lab.ports.files.remove(`${item.directory}/anchor.json`);
    this.#own = url;
  }

  get #item(): LocalItem {
    return new LocalItem(this.session.home, 'web', this.lab.ports.files);
  }

  /** A part of a chunk, and a whole one, from here to the end of the disk. */
  write(seed: number): Promise<void> {
    return this.ship([
      { disk: 0, offset: 512, lengthBytes: 1024, bytes: noise(1024, seed) },
      { disk: 0, offset: 2 * CHUNK, lengthBytes: CHUNK, bytes: noise(CHUNK, seed + 1) },
    ]);
  }

  override async remember(): Promise<void> {
    const newest = (await this.pointsAt(this.#own)).at(-1)!;
    this.points.set(
      newest,
      this.disks.map((disk) => Buffer.from(disk)),
    );
  }

  /** Changes a root of a store as its owner does. */
  async commitAt(url: string, prepare: (root: Root) => RootChange): Promise<void> {
    const save = (anchor: Anchor): Promise<void> => this.#item.saveAnchor(anchor);
    const committer = new Committer(
      await this.replicaAt(url),
      'test',
      url === this.#own ? save : async () => {},
      this.lab.ports,
    );
    await committer.commit(async (root) => prepare(root));
  }

  /** Flips a bit in each sector of a file of a store; what it returns puts back what was there. */
  async damage(url: string, key: string): Promise<() => Promise<void>> {
    const path = `${url.slice('file://'.length)}/${key}`;
    const { files } = this.lab.ports;
    const file = await files.open(path, 'modify');
    const { sizeBytes } = await file.stamp();
    const bytes = Buffer.alloc(sizeBytes);
    await file.read(bytes, 0);
    const damaged = Buffer.from(bytes);
    for (let at = 0; at < sizeBytes; at += 512) if (damaged[at] !== 0) damaged[at]! ^= 1;
    await file.write(damaged, 0);
    await file.close();
    return async () => {
      const again = await files.open(path, 'modify');
      await again.write(bytes, 0);
      await again.close();
    };
  }

  async mirror(request: MirrorRequest = {}): Promise<MirrorReport> {
    const [report] = await mirror(this.session, { name: 'web' }, { to: SECOND_URL, ...request });
    return report!;
  }

  /** The verb alone, without folding what it carried; the second store must be there. */
  async carry(options: Pick<MirrorSetup, 'windowBytes'> = {}): Promise<MirrorResult> {
    const { session } = this;
    const source = await this.replicaAt(FIRST_URL);
    const target = { replica: await this.replicaAt(), leaseId: LEASE_ID, saveAnchor: async () => {} };
    return withWorkers(session, source, (pool) =>
      withWriter(session, target, ({ committer, session: writer }) =>
        mirrorReplica({
          ...{
            committer,
            session: writer,
            source,
            pool,
            discardNewer: false,
            ports: session.ports,
            signal: writer.signal,
          },
          ...{ access: readAccess(session), lanes: sessionLanes(session)(), ...options },
        }),
      ),
    );
  }

  /** Another side takes a store's replica over, from one of its points. */
  async takeOver(url: string, pointId: string, seed: number): Promise<void> {
    const { random } = this.lab.ports;
    await this.commitAt(url, (root) => {
      const { owner, generation: newestGeneration } = root;
      const choice = { planned: false, discardNewer: true, nowMs: 1, random };
      return takeOver(root, { side: noise(16, seed), point: pointId, epoch: owner.epoch, newestGeneration, ...choice });
    });
  }

  /** The replica in a store, opened with the key of this home. */
  async replicaAt(url: string = SECOND_URL): Promise<Replica> {
    return openReplica(await this.lab.store(url), await this.lab.unlock('web'), undefined);
  }

  /** Ids of the points of a store. */
  async pointsAt(url: string = SECOND_URL): Promise<readonly string[]> {
    return (await this.replicaAt(url)).record.root.points.map(({ id }) => id);
  }

  /** Every point of a store is what the guest had; returns their ids. */
  async checkAt(url: string = SECOND_URL): Promise<readonly string[]> {
    const replica = await this.replicaAt(url);
    const { points } = replica.record.root;
    for (const point of points) {
      for (const [i, expected] of this.points.get(point.id)!.entries()) {
        const found = await readPoint(this.session, replica, point, i);
        if (!found.equals(expected)) throw new Error(`disk ${i} of point ${point.id} reads back differently at ${url}`);
      }
    }
    return points.map(({ id }) => id);
  }

  /** The live bases of the second store are what the guest has now. */
  async checkLiveAt(url: string = SECOND_URL): Promise<void> {
    const replica = await this.replicaAt(url);
    const { sync, disks } = replica.record.root;
    if (sync) throw new Error(`a ${sync.kind} is unfinished at ${url}`);
    for (const [i, expected] of this.disks.entries()) {
      const found = await readReplicaDisk(replica, i, { tables: disks[i]!.tables, live: true }, this.lab.ports);
      if (!found.equals(expected)) throw new Error(`the live base of disk ${i} reads back differently at ${url}`);
    }
  }
}
