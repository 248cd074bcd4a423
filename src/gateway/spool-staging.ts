/**
 * A large object in the making that goes into the queue: its parts stand in a file of the cache's format from the first on, so that
 * the commit copies nothing. It becomes a queued write in one step, when all of it is durable.
 */
import { BlockferryError, throwIfAborted } from '../errors.ts';
import type { FileSystem, RandomAccessFile } from '../ports.ts';
import { type CallOptions, type StagedObject, StagedParts } from '../transport/index.ts';
import type { Spool } from './spool.ts';
import { DIGEST_BYTES, encodeHeader, SPOOL_HEADER_BYTES, sha256 } from './spool-file.ts';

export interface SpoolStagingOptions {
  readonly spool: Spool;
  readonly files: FileSystem;
  readonly key: string;
  readonly partBytes: number;
  readonly id: string;
  readonly nowMs: () => number;
  /** Asked before each part is taken, and whether it is the first. @throws STORE_THROTTLED */
  readonly admit: (isFirst: boolean) => Promise<void>;
}

export class SpoolStaging implements StagedObject {
  readonly #options: SpoolStagingOptions;
  readonly #parts: StagedParts;
  readonly #digests: Map<number, Uint8Array> = new Map();
  #file: Promise<RandomAccessFile> | undefined;
  /** Made once, however often the commit is asked for. */
  #queued: Promise<void> | undefined;
  #isLost = false;
  #bytes = 0;

  constructor(options: SpoolStagingOptions) {
    this.#options = options;
    this.#parts = new StagedParts(options.key, options.partBytes);
  }

  async put(index: number, bytes: Uint8Array, options?: CallOptions): Promise<void> {
    throwIfAborted(options?.signal);
    this.#parts.check(index, bytes.byteLength);
    const { spool, partBytes, admit } = this.#options;
    await admit(this.#file === undefined);
    const file = await this.#open();
    await file.write(bytes, SPOOL_HEADER_BYTES + index * partBytes);
    if (!this.#digests.has(index)) {
      this.#bytes += bytes.byteLength;
      spool.noteStaged(bytes.byteLength);
    }
    this.#digests.set(index, sha256(bytes));
    this.#parts.stored(index, bytes.byteLength);
  }

  async commit(parts: number, options?: CallOptions): Promise<void> {
    throwIfAborted(options?.signal);
    if (this.#isLost) throw lost(this.#options.key);
    const bodyBytes = this.#parts.checkWhole(parts);
    this.#parts.end();
    this.#queued ??= this.#enqueue(parts, bodyBytes).catch(async (error: unknown) => {
      // Its parts take room that nobody would give back.
      await this.lose();
      throw error;
    });
    await this.#queued;
  }

  async abort(): Promise<void> {
    if (this.#queued !== undefined) return;
    this.#parts.abandon();
    await this.#discard();
  }

  /** Another staging of the key was committed first. */
  async lose(): Promise<void> {
    this.#isLost = true;
    await this.#discard();
  }

  async #enqueue(parts: number, bodyBytes: number): Promise<void> {
    const { spool, key, partBytes, nowMs } = this.#options;
    const table = Buffer.alloc(parts * DIGEST_BYTES);
    for (let i = 0; i < parts; i += 1) table.set(this.#digests.get(i)!, i * DIGEST_BYTES);
    const file = await this.#open();
    await file.truncate(SPOOL_HEADER_BYTES + bodyBytes);
    await file.write(table, SPOOL_HEADER_BYTES + bodyBytes);
    const entry = { kind: 'object', key, pieceBytes: partBytes, bodyBytes, acceptedMs: nowMs(), table } as const;
    await file.write(encodeHeader(entry), 0);
    await file.sync();
    await file.close();
    await spool.adopt(file.path);
    this.#forget();
  }

  #open(): Promise<RandomAccessFile> {
    const { spool, files, id } = this.#options;
    this.#file ??= files.open(spool.stagingPath(id), 'create');
    return this.#file;
  }

  async #discard(): Promise<void> {
    if (!this.#file) return;
    const file = await this.#file;
    await file.close();
    await this.#options.files.remove(file.path);
    this.#forget();
  }

  #forget(): void {
    this.#options.spool.noteStaged(-this.#bytes);
    this.#bytes = 0;
  }
}

/** The error for the parts of a staging that are not there any more. */
export function lost(key: string): BlockferryError {
  return new BlockferryError('STORE_CONDITION', `${key}: the parts of this upload are gone`, {
    facts: { source: key, rule: 'the first staging to be committed wins' },
    hint: 'another writer made this object meanwhile, or the gateway was started anew; run the command again',
  });
}
