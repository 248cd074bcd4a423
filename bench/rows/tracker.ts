/**
 * tracker: random writes of a guest through our tracker, which logs each of them, against qemu-nbd, which logs none. Disk and log
 * lie on tmpfs: what is measured is the server, not the disk. fio is a process of its own, and shares the processors.
 */
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Ferry } from '../blockferry.ts';
import { randomWrites, type Written } from '../fio.ts';
import { GIB, KIB, type Lab, MIB, removeTree } from '../lab.ts';
import { LIMITS } from '../limits.ts';
import { type Contestant, type Outcome, race } from '../race.ts';
import { emptyRaw, type Served, startForgetful, startQemuNbd, startTrack } from '../served.ts';

const DISK_BYTES = 4 * GIB;
/** Below the half of a disk at which a log gives way. */
const WRITTEN_BYTES_MAX = GIB;

const SHIP_SECONDS_MAX = 60;

const SIZES = [
  ['4 KiB', 4 * KIB],
  ['64 KiB', 64 * KIB],
  ['1 MiB', MIB],
] as const;

/** Starts a server over a new disk for each run, and ends it afterwards. */
abstract class Guest {
  protected readonly disk: string;
  #served: Served | undefined;

  constructor(disk: string) {
    this.disk = disk;
  }

  protected abstract serve(): Promise<Served>;

  async begin(): Promise<void> {
    await mkdir(dirname(this.disk), { recursive: true });
    await emptyRaw(this.disk, DISK_BYTES);
    this.#served = await this.serve();
  }

  get served(): Served {
    if (this.#served === undefined) throw new Error('nothing is served');
    return this.#served;
  }

  async end(): Promise<void> {
    await this.#served?.stop();
    await removeTree(dirname(this.disk));
  }
}

class QemuGuest extends Guest {
  protected override serve(): Promise<Served> {
    return startQemuNbd(this.disk);
  }
}

class ForgetfulGuest extends Guest {
  protected override serve(): Promise<Served> {
    return startForgetful(this.disk);
  }
}

class TrackedGuest extends Guest {
  readonly #lab: Lab;
  readonly #home: string;
  ferry!: Ferry;

  constructor(lab: Lab) {
    super(`${lab.target('tracked')}/disk.raw`);
    this.#lab = lab;
    this.#home = lab.target('home');
  }

  protected override async serve(): Promise<Served> {
    this.ferry = await Ferry.make(this.#home);
    await this.ferry.protect([this.disk], this.#lab.discarding());
    return startTrack(this.ferry);
  }
}

/** Two servers and the work that each of them gets. */
function contestants(lab: Lab, work: (uri: string) => Promise<Written>): readonly Contestant[] {
  const [tracked, qemu] = [new TrackedGuest(lab), new QemuGuest(`${lab.target('qemu')}/disk.raw`)];
  const forgetful = new ForgetfulGuest(`${lab.target('forgetful')}/disk.raw`);
  const serving = (guest: Guest): Pick<Contestant, 'prepare' | 'run' | 'clean' | 'tool'> => ({
    tool: 'fio',
    prepare: () => guest.begin(),
    run: () => guest.served.during(async () => ({ ...(await work(guest.served.uri)) })),
    clean: () => guest.end(),
  });
  return [
    { name: 'blockferry', command: 'blockferry track vm', ...serving(tracked) },
    { name: 'qemu-nbd', command: 'qemu-nbd --format=raw --cache=writeback disk.raw', ...serving(qemu) },
    { name: LIMITS.serve, command: 'our NBD server over a device that forgets what is written', ...serving(forgetful) },
  ];
}

export async function tracker(lab: Lab): Promise<void> {
  const runtime = lab.smoke ? 1 : 3;
  for (const [name, bs] of SIZES) {
    const input = `fio --rw=randwrite --bs=${name} --iodepth=16, ${runtime} s or 1 GiB, on an empty raw disk of 4 GiB on tmpfs`;
    const job = { bs, size: DISK_BYTES, io_size: WRITTEN_BYTES_MAX, runtime, iodepth: 16 };
    await race(
      lab,
      { bench: 'tracker', task: name, input },
      contestants(lab, (uri) => randomWrites(uri, job)),
    );
  }
}

/** How long single writes take: of a guest that writes steadily, and of one that does while a cycle ships. */
export async function latency(lab: Lab): Promise<void> {
  const runtime = lab.smoke ? 1 : 4;
  const rate = 2000;
  const steady = { bs: 4 * KIB, size: DISK_BYTES, rate_iops: rate, runtime, time_based: 1, iodepth: 4 };
  const input = `fio --rw=randwrite --bs=4k --rate_iops=${rate} --iodepth=4 on an empty raw disk of 4 GiB on tmpfs`;
  await race(
    lab,
    { bench: 'latency', task: 'idle', input: `${input}, ${runtime} s` },
    contestants(lab, (uri) => randomWrites(uri, steady)),
  );
  const guest = new TrackedGuest(lab);
  const filling = { bs: 64 * KIB, size: DISK_BYTES, io_size: lab.size(GIB, 32 * MIB), iodepth: 16 };
  await race(
    lab,
    { bench: 'latency', task: 'under ship', input: `${input}, for as long as a log of 1 GiB is shipped` },
    [
      {
        name: 'blockferry',
        tool: 'fio',
        command: 'blockferry track vm, blockferry ship vm',
        prepare: async () => {
          await guest.begin();
          await randomWrites(guest.served.uri, filling);
        },
        run: () => guest.served.during(() => underShip(guest, steady)),
        clean: () => guest.end(),
      },
    ],
  );
}

/** The guest writes while the cycle ships, and no longer. */
async function underShip(guest: TrackedGuest, job: Record<string, number>): Promise<Record<string, number>> {
  const shipping: Promise<Outcome> = guest.ferry.run('ship', 'vm');
  const untilShipped = { ...job, runtime: SHIP_SECONDS_MAX };
  const [written, { wallMs }] = await Promise.all([randomWrites(guest.served.uri, untilShipped, shipping), shipping]);
  return { ...written, shippedMs: Math.round(wallMs) };
}
