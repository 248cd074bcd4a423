/**
 * Small things to wait at: a gate with many shared users or one exclusive one, a group commit, the end of several calls.
 */

/** Shared work runs together, exclusive work alone; in the order of arrival, so neither starves. */
export class Gate {
  #shared = 0;
  #exclusive = false;
  readonly #waiting: { readonly exclusive: boolean; readonly enter: () => void }[] = [];

  async shared<T>(run: () => Promise<T>): Promise<T> {
    await this.#enter(false);
    try {
      return await run();
    } finally {
      this.#shared -= 1;
      this.#admit();
    }
  }

  async exclusive<T>(run: () => Promise<T>): Promise<T> {
    await this.#enter(true);
    try {
      return await run();
    } finally {
      this.#exclusive = false;
      this.#admit();
    }
  }

  #enter(exclusive: boolean): Promise<void> {
    return new Promise((enter) => {
      this.#waiting.push({ exclusive, enter });
      this.#admit();
    });
  }

  #admit(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (this.#exclusive || (next.exclusive && this.#shared > 0)) return;
      if (next.exclusive) this.#exclusive = true;
      else this.#shared += 1;
      this.#waiting.shift();
      next.enter();
    }
  }
}

/**
 * Many callers, one commit: while one commit runs, what arrives is collected for the next. Commits never overlap, and
 * a caller's promise settles with the commit that carried its item.
 */
export class GroupCommit<T> {
  readonly #commit: (items: readonly T[]) => Promise<void>;
  #next: { readonly items: T[]; readonly done: Promise<void> } | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(commit: (items: readonly T[]) => Promise<void>) {
    this.#commit = commit;
  }

  add(item: T): Promise<void> {
    if (this.#next === undefined) {
      const items: T[] = [];
      const done = this.#running.then(() => {
        this.#next = undefined;
        return this.#commit(items);
      });
      this.#running = done.catch(() => {});
      this.#next = { items, done };
    }
    this.#next.items.push(item);
    return this.#next.done;
  }
}

/** Waits until all have settled, so that nothing of them runs on; then throws the first failure, if there was one. */
export async function allDone(promises: readonly Promise<unknown>[]): Promise<void> {
  for (const result of await Promise.allSettled(promises)) {
    if (result.status === 'rejected') throw result.reason;
  }
}
