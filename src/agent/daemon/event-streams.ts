/** Events for those who listen: each has a queue of its own, which ends with the agent or when its reader goes away. */
import type { AgentEvent } from './types.ts';

/** A reader that has not taken so many has gone away. */
const UNREAD_MAX = 10_000;

interface Listener {
  readonly queue: AgentEvent[];
  wake: () => void;
  ended: boolean;
}

export class EventStreams {
  readonly #listeners: Set<Listener> = new Set();
  #closed = false;

  /** Gives an event to all who listen. */
  push(event: AgentEvent): void {
    for (const listener of this.#listeners) {
      listener.queue.push(event);
      if (listener.queue.length > UNREAD_MAX) listener.ended = true;
      listener.wake();
    }
  }

  /** Ends all streams, when their readers have taken what there is. */
  close(): void {
    this.#closed = true;
    for (const listener of this.#listeners) listener.wake();
  }

  /** Events from this call on. */
  open(): AsyncIterableIterator<AgentEvent> {
    const listener: Listener = { queue: [], wake: () => {}, ended: false };
    this.#listeners.add(listener);
    return this.#read(listener);
  }

  async *#read(listener: Listener): AsyncGenerator<AgentEvent, void> {
    try {
      while (!listener.ended) {
        const event = listener.queue.shift();
        if (event) yield event;
        else if (this.#closed) return;
        else {
          await new Promise<void>((resolve) => {
            listener.wake = resolve;
          });
        }
      }
    } finally {
      this.#listeners.delete(listener);
    }
  }
}
