/**
 * SharedLock: any number of holders at once, or one alone. First come, first served: who wants to be alone waits for
 * those before it, and those behind it wait too, so nobody starves.
 */

interface Waiting {
  readonly isAlone: boolean;
  readonly start: () => void;
}

export class SharedLock {
  #sharing = 0;
  #isAlone = false;
  readonly #queue: Waiting[] = [];

  /** Whether a shared step would start now: one that never waits needs no more. */
  get isSharable(): boolean {
    return this.#queue.length === 0 && !this.#isAlone;
  }

  /** Runs `step` beside other shared ones. */
  shared<T>(step: () => Promise<T>): Promise<T> {
    return this.#run(false, step);
  }

  /** Runs `step` while nothing else runs. */
  alone<T>(step: () => Promise<T>): Promise<T> {
    return this.#run(true, step);
  }

  async #run<T>(isAlone: boolean, step: () => Promise<T>): Promise<T> {
    if (this.#queue.length > 0 || !this.#mayStart(isAlone)) {
      await new Promise<void>((start) => this.#queue.push({ isAlone, start }));
    } else {
      this.#enter(isAlone);
    }
    try {
      return await step();
    } finally {
      if (isAlone) this.#isAlone = false;
      else this.#sharing -= 1;
      this.#admit();
    }
  }

  #admit(): void {
    for (let next = this.#queue[0]; next !== undefined && this.#mayStart(next.isAlone); next = this.#queue[0]) {
      this.#queue.shift();
      this.#enter(next.isAlone);
      next.start();
    }
  }

  #mayStart(isAlone: boolean): boolean {
    return !this.#isAlone && !(isAlone && this.#sharing > 0);
  }

  #enter(isAlone: boolean): void {
    if (isAlone) this.#isAlone = true;
    else this.#sharing += 1;
  }
}
