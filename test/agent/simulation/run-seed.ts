/**
 * Runs one seed: the engine over the modelled machines, processes that die and come back, and whatever the story has for them.
 * At the end all faults are over, and every machine has to come to rest.
 */
import { AgentEngine } from '../../../src/agent/daemon/engine.ts';
import type { Capacity } from './line.ts';
import { MachineModel, type Planted, StateModel } from './machine-model.ts';
import { checkRetention } from './retention-check.ts';
import { HOUR, type Incident, MINUTE, type Story } from './story.ts';
import { readsOpen } from './wall-clock.ts';
import { Watch } from './watch.ts';
import { Life, World } from './world.ts';

/** After the last fault: a resync may have to wait for its window, and go round twice. */
const REST_MS_MAX = 30 * HOUR;

export interface Outcome {
  readonly violations: readonly string[];
  readonly cycles: number;
  readonly points: number;
  readonly resyncs: number;
  readonly fullCopies: number;
  readonly processes: number;
  readonly failures: number;
  /** Points that were dropped, and checks of one that was being read. */
  readonly dropped: number;
  readonly read: number;
}

interface Cast {
  readonly model: MachineModel;
  readonly watch: Watch;
}

/** `onTalk` gets a line for each event: to read how a seed went wrong. */
export async function runSeed(story: Story, planted: Planted = {}, onTalk?: (line: string) => void): Promise<Outcome> {
  return await new SeedRun(story, planted, onTalk).run();
}

class SeedRun {
  readonly #story: Story;
  readonly #onTalk: ((line: string) => void) | undefined;
  readonly #world: World;
  readonly #cast: ReadonlyMap<string, Cast>;
  readonly #state = new StateModel();
  readonly #counts = { cycles: 0, resyncs: 0, processes: 0, failures: 0, read: 0 };
  #life: Life;
  #engine: AgentEngine | undefined;
  /** For how long the next death lasts. */
  #downMs = 0;
  #isOver = false;
  /** Ends the process that runs, in order. */
  #stop: AbortController = new AbortController();

  constructor(story: Story, planted: Planted, onTalk?: (line: string) => void) {
    this.#story = story;
    this.#onTalk = onTalk;
    const capacity = capacityOf(story);
    this.#world = new World(story.seed, story.startMs, capacity);
    this.#life = new Life(this.#world);
    this.#cast = new Map(
      story.machines.map((plan) => {
        const model = new MachineModel(plan.config.name, plan.guest, this.#world, planted);
        return [plan.config.name, { model, watch: new Watch(this.#world, model, plan) }];
      }),
    );
  }

  async run(): Promise<Outcome> {
    const incidents = this.#story.incidents.map((incident) => this.#befall(incident));
    const story = async (): Promise<void> => {
      await this.#world.sleep(this.#story.lastsMs);
      await Promise.all(incidents);
      await this.#settle();
      this.#isOver = true;
      this.#stop.abort();
    };
    await this.#world.run(Promise.all([story(), this.#processes()]));
    for (const { model } of this.#cast.values()) {
      this.#check(() => model.replica.restoreAll());
      const { config } = this.#story.machines.find((plan) => plan.config.name === model.name)!;
      if (this.#world.jumpsAtMs.length === 0) this.#check(() => checkRetention(model.replica, config.retention));
    }
    const models = [...this.#cast.values()].map(({ model }) => model);
    const sum = (of: (model: MachineModel) => number): number => models.reduce((total, model) => total + of(model), 0);
    const points = sum(({ replica }) => replica.made.length);
    return {
      ...{ violations: this.#world.violations, points, ...this.#counts },
      fullCopies: sum(({ fullCopies }) => fullCopies.length),
      dropped: points - sum(({ replica }) => replica.root?.points.length ?? 0),
    };
  }

  /** One process after the other, until the end. */
  async #processes(): Promise<void> {
    while (!this.#isOver) {
      const life = new Life(this.#world);
      this.#life = life;
      this.#stop = new AbortController();
      this.#counts.processes += 1;
      for (const [name, { watch }] of this.#cast) watch.processStarts(this.#state.saved(name));
      const { machines, zone, lanes, bandwidth } = this.#story;
      const engine = new AgentEngine({
        config: {
          ...{ zone, lanes, bandwidth, machines: machines.map(({ config }) => config) },
          // As many as by default: a month has more machines than that.
          atOnce: Math.max(4, Math.ceil(machines.length / 4)),
        },
        operations: ({ name }) => {
          const { model, watch } = this.#cast.get(name)!;
          return watch.around(model.operations(life));
        },
        clock: life.clock,
        state: this.#state.store(life),
        onEvent: (event) => {
          if (life.isDead) return;
          this.#talk(event);
          if ('machine' in event) this.#cast.get(event.machine)!.watch.onEvent(event);
          if (event.type === 'operation-ended' && event.verb === 'ship') this.#counts.cycles += 1;
          if (event.type === 'operation-ended' && event.verb === 'resync') this.#counts.resyncs += 1;
          if (event.type === 'operation-failed') this.#counts.failures += 1;
        },
      });
      this.#engine = engine;
      await Promise.race([engine.run(this.#stop.signal), life.died]);
      this.#engine = undefined;
      for (const { watch } of this.#cast.values()) watch.processDied();
      if (!this.#isOver) await this.#world.sleep(this.#downMs);
    }
  }

  async #befall(incident: Incident): Promise<void> {
    await this.#world.sleep(incident.atMs);
    this.#talk(incident);
    switch (incident.kind) {
      case 'fault': {
        const { fault, lastsMs } = incident;
        const concerned = incident.machines === 'all' ? [...this.#cast.keys()] : incident.machines;
        this.#world.begin(fault, new Set(concerned));
        await this.#world.sleep(lastsMs);
        this.#world.end(fault);
        // Whoever mends what only a person can tells the agent.
        if (fault === 'sas-expired' || fault === 'chain-broken') await this.#retry(concerned);
        return;
      }
      case 'kill':
        this.#downMs = incident.downMs;
        this.#life.dieIn(incident.inSteps);
        return;
      case 'clock':
        this.#world.setWallClock(incident.byMs);
        for (const { watch } of this.#cast.values()) watch.clockWasSet();
        return;
      case 'burst': {
        const { guest } = this.#model(incident.machine);
        guest.burst = 5000;
        await this.#world.sleep(incident.lastsMs);
        guest.catchUp();
        guest.burst = 1;
        return;
      }
      case 'edited-offline':
        // Nobody can while it is being copied.
        if (this.#model(incident.machine).guest.mode === 'resyncing') return;
        this.#model(incident.machine).guest.giveWay('EDITED_OFFLINE', `edited at ${this.#world.monotonicMs()}`);
        return;
      case 'asked-resync':
        return await this.#askResync(incident.machine);
      case 'reader':
        return await this.#read(this.#model(incident.machine), incident.lastsMs);
      case 'paused':
        return await this.#pause(incident.machine, incident.lastsMs);
      case 'low-space': {
        const model = this.#model(incident.machine);
        const before = model.freeBytes;
        model.freeBytes = Math.round(before * incident.freeShare);
        await this.#world.sleep(incident.lastsMs);
        model.freeBytes = before;
        return;
      }
    }
  }

  #talk(what: unknown): void {
    this.#onTalk?.(`${(this.#world.monotonicMs() / HOUR).toFixed(4)} h ${JSON.stringify(what)}`);
  }

  #model(name: string): MachineModel {
    return this.#cast.get(name)!.model;
  }

  /** Asks the agent, as soon as one runs. */
  async #ask(work: (engine: AgentEngine) => Promise<void>): Promise<void> {
    for (;;) {
      const [engine, life] = [this.#engine, this.#life];
      if (engine && !life.isDead) {
        const asked = await Promise.race([work(engine).then(() => true), life.died.then(() => false)]);
        if (asked) return;
      }
      await this.#world.sleep(MINUTE);
    }
  }

  async #retry(names: readonly string[]): Promise<void> {
    for (const name of names) {
      await this.#ask(async (engine) => {
        this.#cast.get(name)!.watch.personCame();
        await engine.machine(name).retry();
      });
    }
  }

  async #askResync(name: string): Promise<void> {
    const { watch } = this.#cast.get(name)!;
    await this.#ask(async (engine) => {
      try {
        watch.wasAsked = true;
        watch.personCame();
        await engine.machine(name).resync();
      } catch {
        // Refused in a state in which there is nothing to resync.
        watch.wasAsked = false;
      }
    });
  }

  async #pause(name: string, forMs: number): Promise<void> {
    const { watch } = this.#cast.get(name)!;
    await this.#ask(async (engine) => {
      await engine.machine(name).pause();
      watch.isPaused = true;
    });
    await this.#world.sleep(forMs);
    await this.#ask(async (engine) => {
      watch.isPaused = false;
      watch.resumes();
      await engine.machine(name).resume();
    });
  }

  /** Reads a point for long, with a pin; it must be there all the while. */
  async #read(model: MachineModel, forMs: number): Promise<void> {
    const { replica } = model;
    const points = replica.root?.points ?? [];
    if (points.length === 0) return;
    const { id } = this.#world.dice.pick(points);
    replica.pins.set(id, (replica.pins.get(id) ?? 0) + 1);
    for (let leftMs = forMs; leftMs > 0; leftMs -= 10 * MINUTE) {
      this.#counts.read += 1;
      this.#check(() => replica.restore(id));
      await this.#world.sleep(10 * MINUTE);
    }
    this.#check(() => replica.restore(id));
    const readers = replica.pins.get(id)! - 1;
    if (readers === 0) replica.pins.delete(id);
    else replica.pins.set(id, readers);
  }

  /** Waits until each machine is protected, with a fresh point. */
  async #settle(): Promise<void> {
    const names = [...this.#cast.keys()];
    await this.#retry(names);
    const manual = this.#story.machines.filter(({ config }) => config.resync === 'manual');
    const fromMs = this.#world.monotonicMs();
    const made = new Map(names.map((name) => [name, this.#model(name).replica.made.length]));
    const isAtRest = (name: string): boolean => {
      const { guest, replica } = this.#model(name);
      return guest.mode === 'logging' && replica.root?.sync === undefined && replica.made.length >= made.get(name)! + 2;
    };
    while (this.#world.monotonicMs() - fromMs < REST_MS_MAX) {
      if (names.every(isAtRest)) return;
      // Somebody looks at the status now and then.
      for (const { config } of manual) {
        if (this.#model(config.name).guest.mode === 'resync-required') await this.#askResync(config.name);
      }
      await this.#world.sleep(5 * MINUTE);
    }
    const status = this.#engine?.status() ?? [];
    for (const name of names.filter((each) => !isAtRest(each))) {
      const stuck = status.find((each) => each.name === name);
      this.#world.broken(`${name} is stuck: ${JSON.stringify(stuck)} ${this.#model(name).guest.mode}`);
    }
  }

  #check(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#world.broken(error instanceof Error ? error.message : String(error));
    }
  }
}

function capacityOf({ bandwidth, lineBytesPerSecond }: Story): (nowMs: number) => Capacity {
  const { workHours, otherBytesPerSecond } = bandwidth;
  return (nowMs) => ({
    bytesPerSecond: lineBytesPerSecond,
    capBytesPerSecond: workHours && readsOpen(workHours, nowMs) ? workHours.bytesPerSecond : otherBytesPerSecond,
  });
}
