/** Which snapshots are removed: what no root names, and nobody can be about to name. */
import { expect, it } from 'vitest';
import { collectSnapshots } from '../../src/replica/collect-snapshots.ts';
import type { Baseline, Root } from '../../src/replica/index.ts';
import type { LiveBase } from '../../src/replica/live-base.ts';
import type { PinnedSnapshot } from '../../src/replica/pin-record.ts';
import { Pins } from '../../src/replica/pins.ts';
import type { SessionBlob } from '../../src/replica/writer-session.ts';

class Blob {
  readonly key: string;
  names: string[];

  constructor(key: string, ...names: readonly string[]) {
    this.key = key;
    this.names = [...names];
  }

  async snapshots(): Promise<readonly string[]> {
    return [...this.names];
  }

  async deleteSnapshot(snapshot: string): Promise<void> {
    this.names = this.names.filter((name) => name !== snapshot);
  }
}

const baseline = (generation: number, manifestSnapshot: string, ...bases: readonly string[]): Baseline => ({
  generation,
  appliedLog: 0,
  disks: [{ tables: [], manifestSnapshot, baseSnapshots: bases.map((snapshot, segment) => ({ segment, snapshot })) }],
});

async function collect(
  baselines: readonly Baseline[],
  manifest: Blob,
  bases: readonly Blob[],
  pinned: readonly PinnedSnapshot[] = [],
): Promise<void> {
  const base = { blobs: async () => bases } as unknown as LiveBase;
  const disk = { base, manifest: manifest as unknown as SessionBlob };
  const pin = { point: 'p1', untilMs: 1, logs: { after: 0, last: 0 }, snapshots: pinned };
  await collectSnapshots({ baselines } as unknown as Root, [disk], async () => new Pins([pin]));
}

it('snapshots between those that baselines name are removed', async () => {
  const manifest = new Blob('disks/d0/manifest', '01', '02', '03', '04', '05');
  const segments = [new Blob('disks/d0/base', '01', '02', '03'), new Blob('disks/d0/base.1', '01', '07', '08')];
  await collect([baseline(3, '02', '01'), baseline(5, '05', '03', '08')], manifest, segments);
  expect(manifest.names).toEqual(['02', '05']);
  expect(segments.map(({ names }) => names)).toEqual([['01', '03'], ['08']]);
});

it('those of a newer root than the one that is known here stay', async () => {
  const manifest = new Blob('disks/d0/manifest', '01', '02', '03', '04');
  const base = new Blob('disks/d0/base', '01', '02');
  // Another writer has committed 04 and 02 of it, and this one does not know it yet.
  await collect([baseline(3, '03', '01')], manifest, [base]);
  expect(manifest.names).toEqual(['03', '04']);
  expect(base.names).toEqual(['01', '02']);
});

it('those of a blob of which no baseline names any stay', async () => {
  const manifest = new Blob('disks/d0/manifest', '01');
  const base = new Blob('disks/d0/base', '01');
  await collect([], manifest, [base]);
  expect([manifest.names, base.names]).toEqual([['01'], ['01']]);
});

it('those that a pin names stay, in the blob that it names', async () => {
  const manifest = new Blob('disks/d0/manifest', '01', '02', '03');
  const base = new Blob('disks/d0/base', '01', '02', '03');
  await collect([baseline(3, '03', '03')], manifest, [base], [{ blob: 'disks/d0/base', snapshot: '02' }]);
  expect(manifest.names).toEqual(['03']);
  expect(base.names).toEqual(['02', '03']);
});
