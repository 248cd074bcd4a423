/**
 * An item with a second store, for tests: what is shipped to the first is mirrored, and every point of the second is read back from
 * it alone and compared with what the guest had.
 */
import { mirror } from '../../src/agent/index.ts';
import type { MirrorReport, MirrorRequest } from '../../src/agent/types.ts';
import { openReplica, type Replica } from '../../src/replica/index.ts';
import { ApplyLab, readPoint } from './apply-lab.ts';
import { readReplicaDisk, STORE_URL } from './replica-lab.ts';

export const FIRST_URL: string = STORE_URL;
export const SECOND_URL = 'file:///memory/second';

export class MirrorLab extends ApplyLab {
  async mirror(request: MirrorRequest = {}): Promise<MirrorReport> {
    const [report] = await mirror(this.session, { name: 'web' }, { to: SECOND_URL, ...request });
    return report!;
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
