/** One token of an identity for many requests: asked for once, again before it expires, and after it failed or was refused. */
import type { TokenCredential } from '@azure/identity';
import type { Clock } from '../ports.ts';

const SCOPE = 'https://storage.azure.com/.default';
/** A token is replaced so long before it expires. */
const MARGIN_MS = 300_000;

export class AzureToken {
  readonly #credential: TokenCredential;
  readonly #clock: Clock;
  #held: { readonly text: Promise<string>; untilMs: number } | undefined;

  constructor(credential: TokenCredential, clock: Clock) {
    this.#credential = credential;
    this.#clock = clock;
  }

  /** @throws what the identity says */
  async text(): Promise<string> {
    if (this.#held === undefined || this.#clock.nowMs() >= this.#held.untilMs) this.#held = this.#ask();
    return await this.#held.text;
  }

  /** The service did not take it. */
  drop(): void {
    this.#held = undefined;
  }

  #ask(): { readonly text: Promise<string>; untilMs: number } {
    const held = { text: this.#fetch((untilMs) => (held.untilMs = untilMs)), untilMs: Number.POSITIVE_INFINITY };
    held.text.catch(() => {
      if (this.#held === held) this.#held = undefined;
    });
    return held;
  }

  async #fetch(until: (untilMs: number) => void): Promise<string> {
    const token = await this.#credential.getToken(SCOPE);
    if (token === null) throw Object.assign(new Error('there is no token'), { name: 'AuthenticationError' });
    until(token.expiresOnTimestamp - MARGIN_MS);
    return token.token;
  }
}
