/** How much a gateway's cache may take in: its own limit, and what the volume leaves. */
import { BlockferryError } from '../errors.ts';
import type { FileSystem } from '../ports.ts';
import type { GatewayStatus, SpaceRule } from './types.ts';

/** Clients come back after this; what waits drains meanwhile. */
const RETRY_AFTER_MS = 5_000;

export interface CacheSpaceOptions {
  readonly directory: string;
  readonly limitBytes: number;
  readonly lowSpace: 'act' | 'tell';
  readonly files: FileSystem;
  readonly rule: SpaceRule;
  readonly usedBytes: () => number;
}

export class CacheSpace {
  readonly #options: CacheSpaceOptions;

  constructor(options: CacheSpaceOptions) {
    this.#options = options;
  }

  /**
   * An object that has begun is let to its end, so the limit is passed by no more than is under way; what the volume has to keep
   * free stops it too. @throws STORE_THROTTLED
   */
  async admit(isFirst: boolean): Promise<void> {
    const { limitBytes, lowSpace, usedBytes } = this.#options;
    const used = usedBytes();
    if (isFirst && used >= limitBytes)
      throw full(`its cache holds ${used} of ${limitBytes} bytes`, { used, limitBytes });
    const { freeBytes, totalBytes, verdict } = await this.volume();
    if (verdict !== 'stop' || lowSpace === 'tell') return;
    throw full(`the volume of its cache has ${freeBytes} of ${totalBytes} bytes free`, { freeBytes, totalBytes });
  }

  async volume(): Promise<Pick<GatewayStatus['cache'], 'freeBytes' | 'totalBytes' | 'verdict'>> {
    const { files, directory, rule } = this.#options;
    const [freeBytes, totalBytes] = await Promise.all([files.freeBytes(directory), files.volumeBytes(directory)]);
    return { freeBytes, totalBytes, verdict: rule(freeBytes, totalBytes) };
  }
}

function full(why: string, facts: Readonly<Record<string, number>>): BlockferryError {
  return new BlockferryError('STORE_THROTTLED', `the gateway takes nothing more right now: ${why}`, {
    facts: { ...facts, retryAfterMs: RETRY_AFTER_MS },
    retryable: true,
    hint: 'changes stay in the logs beside the disks until it does; see "blockferry agent status" at the gateway',
  });
}
