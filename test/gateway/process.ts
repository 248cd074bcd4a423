/** A gateway and machines behind it as processes of their own: the real program, the real tracker, a guest that writes. */
import { mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nodePorts } from '../../src/host/index.ts';
import type { AgentStatus } from '../../src/index.ts';
import { type RunResult, records, runCli } from '../cli/support.ts';
import { type RunningAgent, startAgentProcess } from '../support/agent.ts';
import { freePort } from '../support/azurite.ts';
import { Dice } from '../support/dice.ts';
import { Guest } from '../support/guest.ts';
import { GuestModel } from '../support/guest-model.ts';
import { type RunningTracker, startTracker } from '../support/tracker.ts';

const MIB = 1 << 20;
const DISK_BYTES = 8 * MIB;

export interface GatewayProcessOptions {
  /** URL of the real store, which is called `cloud`. */
  readonly store: string;
  /** Lines of the configuration besides. */
  readonly lines?: readonly string[];
}

export class GatewayProcess {
  readonly directory: string;
  readonly port: number;
  readonly #config: string;
  #agent: RunningAgent | undefined;

  private constructor(directory: string, port: number) {
    this.directory = directory;
    this.port = port;
    this.#config = join(directory, 'gateway.yaml');
  }

  static async create({ store, lines = [] }: GatewayProcessOptions): Promise<GatewayProcess> {
    const directory = await mkdtemp(join(tmpdir(), 'bf-gateway-'));
    const gateway = new GatewayProcess(directory, await freePort());
    for (const name of ['one', 'two']) await writeFile(gateway.tokenFile(name), `${name}-`.repeat(16));
    await writeFile(
      gateway.#config,
      [
        `home: ${join(directory, 'home')}`,
        ...lines,
        'gateway:',
        `  listen: 127.0.0.1:${gateway.port}`,
        '  cache: { directory: cache, limit: 1GiB, low-space: tell }',
        `  stores: [{ name: cloud, to: '${store}' }]`,
        '  clients:',
        '    - { name: one, token-file: one.token, may: [cloud/one] }',
        '    - { name: two, token-file: two.token, may: [cloud/two] }',
        '',
      ].join('\n'),
    );
    return gateway;
  }

  tokenFile(client: string): string {
    return join(this.directory, `${client}.token`);
  }

  url(place: string): string {
    return `gateway+http://127.0.0.1:${this.port}/cloud/${place}`;
  }

  async start(env: Readonly<Record<string, string>> = {}): Promise<RunningAgent> {
    this.#agent = await startAgentProcess(this.#config, env);
    return this.#agent;
  }

  /** kill -9, if it still runs. */
  async kill(): Promise<void> {
    const { child } = this.#agent!;
    if (child.exitCode === null && child.signalCode === null) await this.#agent!.end('SIGKILL');
  }

  /** As it is now, or was since. */
  async status(): Promise<NonNullable<AgentStatus['gateway']>> {
    const askedMs = nodePorts().clock.nowMs();
    for (;;) {
      const result = await runCli(['agent', 'status', '--config', this.#config, '--json']);
      const { gateway } = records(result)[0] as unknown as AgentStatus;
      if (gateway!.lookedMs >= askedMs) return gateway!;
    }
  }

  /** Until nothing waits any more. */
  async drained(): Promise<void> {
    for (let tries = 0; tries < 100; tries += 1) {
      const { replicas } = await this.status();
      if (replicas.every(({ oldestMs }) => oldestMs === undefined)) return;
    }
    throw new Error(`writes still wait: ${JSON.stringify(await this.status())}\n${this.#agent?.talk()}`);
  }

  async close(): Promise<void> {
    if (this.#agent) await this.kill();
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** A machine with one raw disk, tracked, written by a guest. */
export class MachineBehind {
  readonly directory: string;
  readonly name: string;
  readonly #gateway: GatewayProcess;
  readonly #direct: string;
  readonly #model = new GuestModel([]);
  #tracker: RunningTracker | undefined;
  #guest: Guest | undefined;

  private constructor(directory: string, name: string, gateway: GatewayProcess, direct: string) {
    this.directory = directory;
    this.name = name;
    this.#gateway = gateway;
    this.#direct = direct;
  }

  /** Protects it through the gateway, and starts its tracker and guest. `direct`: URL of the replica at the real store. */
  static async begin(name: string, gateway: GatewayProcess, direct: string): Promise<MachineBehind> {
    const directory = await mkdtemp(join(tmpdir(), `bf-${name}-`));
    const machine = new MachineBehind(directory, name, gateway, direct);
    const dice = new Dice(name.length);
    await writeFile(machine.#disk, dice.bytes(2 * MIB));
    await truncate(machine.#disk, DISK_BYTES);
    const key = join(directory, 'key');
    await machine.must('keygen', key);
    const to = ['--to', gateway.url(`${name}/vm`), '--key-file', key, '--chunk-size', '64KiB', '--workers', '1'];
    await machine.must('protect', name, machine.#disk, ...to);
    machine.#tracker = await startTracker(name, machine.#home);
    const path = machine.#tracker.listening.listen.slice('unix:'.length);
    machine.#guest = await Guest.connect({ path }, [DISK_BYTES], machine.#model, dice);
    return machine;
  }

  /** A verb of the program, with the token of this machine. */
  run(...args: readonly string[]): Promise<RunResult> {
    const env = { BLOCKFERRY_GATEWAY_TOKEN_FILE: this.#gateway.tokenFile(this.name), BLOCKFERRY_HOME: this.#home };
    return runCli([...args, '--json'], { env });
  }

  async must(...args: readonly string[]): Promise<Readonly<Record<string, unknown>>> {
    const result = await this.run(...args);
    if (result.code !== 0) throw new Error(`${args.join(' ')}: exit ${result.code}: ${result.stderr}${result.stdout}`);
    return records(result).at(-1) ?? {};
  }

  ship(): Promise<RunResult> {
    return this.run('ship', this.name, '--workers', '1');
  }

  /** Lets the guest write, then stop; returns what its disk holds. */
  async write(bytesMax: number = MIB): Promise<Buffer> {
    await this.#guest!.fill({ bytesMax, sectorsMax: 64, pauseMs: 0 });
    return (await this.#guest!.contents())[0]!;
  }

  /** Logs beside the disk that are kept. */
  async logBytes(): Promise<number> {
    const names = (await readdir(this.directory)).filter((name) => name.endsWith('.hrl'));
    const sizes = await Promise.all(names.map(async (name) => (await stat(join(this.directory, name))).size));
    return sizes.reduce((sum, size) => sum + size, 0);
  }

  /** Restores a point from the real store, without gateway and home. */
  async restoreDirectly(point = 'latest'): Promise<Buffer> {
    const out = await mkdtemp(join(this.directory, 'out-'));
    const elsewhere = join(this.directory, 'elsewhere');
    await mkdir(elsewhere, { recursive: true });
    const from = ['--from', this.#direct, '--key-file', join(this.directory, 'key'), '--home', elsewhere];
    await this.must('failover', this.name, ...from, '--point', point, '--test', '--out', out, '--format', 'raw');
    const [file] = (await nodePorts().files.list(out)).filter(({ kind }) => kind === 'file');
    const bytes = await readFile(join(out, file!.name));
    await rm(out, { recursive: true });
    return bytes;
  }

  /** Checks every object that the points at the real store need. */
  async verifyDirectly(): Promise<void> {
    await this.must('verify', this.name, '--from', this.#direct, '--key-file', join(this.directory, 'key'));
  }

  async end(): Promise<void> {
    await this.#guest?.close();
    await this.#tracker?.kill();
    await rm(this.directory, { recursive: true, force: true });
  }

  get #disk(): string {
    return join(this.directory, 'vm.raw');
  }

  get #home(): string {
    return join(this.directory, 'home');
  }
}
