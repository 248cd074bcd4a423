/**
 * A page blob in a folder: the plain sparse file `<key>`, and beside it `<key>@blob/` with its state, its map of written
 * granules and one undo file per snapshot (docs/formats/folder-store.md).
 *
 * One process writes at a time, many may read. Each write looks at the state file first, so a writer whose fence was
 * raised or whose lease was taken over by another process is stopped at its next write. What it cannot stop is a write
 * that had passed the check and is still inside the operating system; local files take milliseconds for that, a lease at
 * least 15 seconds to be taken over.
 *
 * Left out: freeing cleared space. Node has no call that punches a hole, so a clear writes zeros where something was.
 */
import { dirname } from 'node:path';
import { BlockferryError, throwIfAborted } from '../errors.ts';
import { PAGE_WRITE_BYTES_MAX } from '../limits.ts';
import type { Clock, Failpoint, FileSystem, RandomAccessFile } from '../ports.ts';
import { onFiles } from './folder-errors.ts';
import { checkGuard, checkLeaseOf, leasedError, type Subject } from './folder-guard.ts';
import { BlobFiles, type Look } from './folder-handles.ts';
import {
  type BlobPaths,
  blobPaths,
  ensureDirectory,
  publish,
  snapshotName,
  snapshotNumber,
  snapshotNumbers,
  syncNames,
  undoPath,
} from './folder-layout.ts';
import type { FolderLock, HeldLock } from './folder-lock.ts';
import { newMapHeader, readMap } from './folder-map.ts';
import { mergeInto } from './folder-merge.ts';
import { newStateFile, type StateChange } from './folder-state.ts';
import { newUndoHeader } from './folder-undo.ts';
import { FolderWriter } from './folder-writer.ts';
import { Gate } from './gate.ts';
import { checkBlobSize, checkClear, checkFence, checkLease, checkRead, checkWrite, roomFor } from './page-rules.ts';
import type {
  ByteRange,
  CallOptions,
  PageBlob,
  PageBlobState,
  RangesOptions,
  ReadOptions,
  WriteGuard,
} from './store.ts';

/** What the blobs of one folder share. */
export interface FolderContext {
  readonly directory: string;
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly failpoint: Failpoint;
  readonly lock: FolderLock;
}

/** A writer, valid as long as the snapshots are those it was opened with. */
interface Session {
  readonly writer: FolderWriter;
  readonly snapshotsVersion: number;
}

export class FolderPageBlob implements PageBlob {
  readonly key: string;
  readonly #context: FolderContext;
  readonly #paths: BlobPaths;
  /** Reads and writes share it; whatever changes snapshots or identity is alone. */
  readonly #gate = new Gate();
  readonly #files: BlobFiles;
  #session: Session | undefined;
  /** After a failed sync nobody knows what is on the disk, and a second sync would not tell. */
  #broken: unknown;

  constructor(context: FolderContext, key: string) {
    this.key = key;
    this.#context = context;
    this.#paths = blobPaths(context.directory, key);
    // The writer goes with the files it writes to.
    this.#files = new BlobFiles(context.files, this.#paths, key, () => this.#endSession());
  }

  async create(sizeBytes: number, fence: number, options?: CallOptions): Promise<void> {
    checkBlobSize(this.key, sizeBytes);
    checkFence(this.key, fence);
    const { files } = this.#context;
    return await this.#alone(options, async (held) => {
      if (await files.exists(this.#paths.live)) {
        throw new BlockferryError('STORE_CONDITION', `${this.key} exists already`, { facts: { source: this.key } });
      }
      await this.#files.close();
      // What a crash in a former create or remove left; without the live file it means nothing.
      await files.removeTree(this.#paths.sidecar);
      await ensureDirectory(files, this.#paths.sidecar);
      const { state, map, live, temporary } = this.#paths;
      await publish(files, `${state}@new`, state, (write) => write(newStateFile(sizeBytes, fence)));
      await publish(files, `${map}@new`, map, (write) => write(newMapHeader(sizeBytes)));
      await publish(
        files,
        temporary,
        live,
        (_, truncate) => truncate(sizeBytes),
        () => held.verify(),
      );
    });
  }

  async state(options?: CallOptions): Promise<PageBlobState | undefined> {
    return await this.#shared(options, async () => {
      const state = (await this.#files.lookIfThere())?.state;
      return state && { sizeBytes: state.sizeBytes, fence: state.fence };
    });
  }

  async write(bytes: Uint8Array, offset: number, guard: WriteGuard, options?: CallOptions): Promise<void> {
    return await this.#inSession(guard, options, async ({ live, state }, writer) => {
      checkWrite(this.key, offset, bytes.byteLength, state.sizeBytes);
      await writer.prepare(offset, bytes.byteLength);
      await this.#context.failpoint('folder.after-undo');
      await live.write(bytes, offset);
      await this.#context.failpoint('folder.after-write');
    });
  }

  async clear(offset: number, lengthBytes: number, guard: WriteGuard, options?: CallOptions): Promise<void> {
    const end = offset + lengthBytes;
    let at = offset;
    do {
      at = await this.#inSession(guard, options, async ({ state }, writer) => {
        checkClear(this.key, offset, lengthBytes, state.sizeBytes);
        const run = writer.map.runs(at, end).next().value;
        if (run === undefined || run.offset >= end) return end;
        const from = Math.max(at, run.offset);
        const to = Math.min(end, run.offset + run.lengthBytes, from + PAGE_WRITE_BYTES_MAX);
        await writer.zero(from, to - from, async () => this.#context.failpoint('folder.after-undo'));
        await this.#context.failpoint('folder.after-write');
        return to;
      });
    } while (at < end);
  }

  async read(offset: number, lengthBytes: number, options?: ReadOptions): Promise<Uint8Array> {
    return await this.#shared(options, async () => {
      if (options?.snapshot !== undefined)
        return this.#readSnapshot(options.snapshot, offset, lengthBytes, options.into);
      const { live, sizeBytes } = await this.#look();
      checkRead(this.key, offset, lengthBytes, sizeBytes);
      const into = roomFor(lengthBytes, options?.into);
      return into.fill(0, await live.read(into, offset));
    });
  }

  /** The map of the live blob serves its snapshots too: what was never written was never written then. */
  async *ranges(options?: RangesOptions): AsyncGenerator<ByteRange> {
    const runs = await this.#shared(options, async () => {
      const { files } = this.#context;
      const { sizeBytes } = (await this.#look()).state;
      if (options?.snapshot !== undefined) {
        const number = this.#number(options.snapshot);
        if (!(await files.exists(undoPath(this.#paths, number)))) throw this.#noSnapshot(options.snapshot);
      }
      const map = await readMap(files, this.#paths.map, sizeBytes);
      return { sizeBytes, found: map.runs(options?.fromOffset ?? 0, sizeBytes) };
    });
    for (const { offset, lengthBytes } of runs.found) {
      yield { offset, lengthBytes: Math.min(lengthBytes, runs.sizeBytes - offset) };
    }
  }

  async flush(options?: CallOptions): Promise<void> {
    return await this.#shared(options, async () => this.#sync((await this.#look()).live));
  }

  async snapshot(guard: WriteGuard, options?: CallOptions): Promise<string> {
    // Most of the waiting happens here, before anything is locked.
    await this.flush(options);
    return await this.#alone(options, async (held) => {
      const { files } = this.#context;
      const look = await this.#look();
      checkGuard(look.state, guard, this.#subject());
      await this.#sync(look.live);
      const newest = (await snapshotNumbers(files, this.#paths)).at(-1) ?? 0;
      const number = Math.max(look.state.lastSnapshot, newest) + 1;
      await held.verify();
      await publish(files, this.#paths.undoTemporary, undoPath(this.#paths, number), (write) =>
        write(newUndoHeader(number, look.state.sizeBytes)),
      );
      await this.#endSession();
      await this.#snapshotsChanged(held, look, number);
      return snapshotName(number);
    });
  }

  /** The records of a snapshot in the middle are what the next older one still needs: they are handed down to it. */
  async deleteSnapshot(snapshot: string, options?: CallOptions): Promise<void> {
    const number = snapshotNumber(snapshot);
    if (number === undefined || (await this.state(options)) === undefined) return;
    const { files } = this.#context;
    // Long, and therefore not under the lock; what is kept meanwhile is handed down under it.
    await onFiles(this.key, () => this.#gate.exclusive(() => this.#handDown(number)));
    await this.#alone(options, async (held) => {
      const look = await this.#files.lookIfThere();
      if (look === undefined || !(await this.#handDown(number))) return;
      await this.#snapshotsChanged(held, look, look.state.lastSnapshot);
      await files.remove(undoPath(this.#paths, number));
      await files.syncDirectory(this.#paths.sidecar);
    });
  }

  async snapshots(options?: CallOptions): Promise<readonly string[]> {
    return await this.#shared(options, async () =>
      (await snapshotNumbers(this.#context.files, this.#paths)).map(snapshotName),
    );
  }

  async raiseFence(fence: number, leaseId: string | undefined, options?: CallOptions): Promise<void> {
    checkFence(this.key, fence);
    await this.#alone(options, async (held) => {
      const look = await this.#look();
      checkLeaseOf(look.state, leaseId, this.#subject());
      if (fence <= look.state.fence) return;
      // Another process may have written until now: what this one knew of the blob is out of date.
      await this.#endSession();
      await this.#change(held, look, { fence });
    });
  }

  async acquireLease(leaseId: string, durationSeconds: number, options?: CallOptions): Promise<void> {
    checkLease(this.key, leaseId, durationSeconds);
    await this.#alone(options, async (held) => {
      const look = await this.#look();
      const subject = this.#subject();
      if (look.state.lease?.id !== leaseId) checkLeaseOf(look.state, undefined, subject);
      const durationMs = durationSeconds * 1000;
      // Another process may have written until now, under the same id as well.
      await this.#endSession();
      await this.#change(held, look, { lease: { id: leaseId, durationMs, expiresMs: subject.nowMs + durationMs } });
    });
  }

  async renewLease(leaseId: string, options?: CallOptions): Promise<void> {
    await this.#alone(options, async (held) => {
      const look = await this.#look();
      const { lease } = look.state;
      const subject = this.#subject();
      if (lease?.id !== leaseId) throw leasedError(look.state, subject);
      await this.#change(held, look, { lease: { ...lease, expiresMs: subject.nowMs + lease.durationMs } });
    });
  }

  async releaseLease(leaseId: string, options?: CallOptions): Promise<void> {
    await this.#alone(options, async (held) => {
      const look = await this.#files.lookIfThere();
      if (look?.state.lease?.id === leaseId) await this.#change(held, look, { lease: null });
    });
  }

  async remove(leaseId?: string, options?: CallOptions): Promise<void> {
    await this.#alone(options, async (held) => {
      const { files } = this.#context;
      const look = await this.#files.lookIfThere();
      if (look === undefined) return;
      checkLeaseOf(look.state, leaseId, this.#subject());
      // Whoever has the files open in another process finds the mark there.
      await this.#change(held, look, { removed: true });
      await this.#files.close();
      await files.remove(this.#paths.live);
      await files.syncDirectory(dirname(this.#paths.live));
      await files.removeTree(this.#paths.sidecar);
    });
  }

  /** Closes the files; the next call opens them again. */
  close(): Promise<void> {
    return this.#gate.exclusive(() => this.#files.close());
  }

  // Ways in

  async #shared<T>(options: CallOptions | undefined, run: () => Promise<T>): Promise<T> {
    throwIfAborted(options?.signal);
    return await onFiles(this.key, () => this.#gate.shared(run));
  }

  async #alone<T>(options: CallOptions | undefined, run: (held: HeldLock) => Promise<T>): Promise<T> {
    return await onFiles(this.key, () =>
      this.#context.lock.hold(options?.signal, (held) => this.#gate.exclusive(() => run(held))),
    );
  }

  /** Runs `run` with a writer that knows all snapshots, if the guard holds. */
  async #inSession<T>(
    guard: WriteGuard,
    options: CallOptions | undefined,
    run: (look: Look, writer: FolderWriter) => Promise<T>,
  ): Promise<T> {
    for (;;) {
      const result = await this.#shared(options, async () => {
        if (this.#broken !== undefined) throw this.#broken;
        const look = await this.#look();
        checkGuard(look.state, guard, this.#subject());
        const session = this.#session;
        return session?.snapshotsVersion === look.state.snapshotsVersion
          ? { value: await run(look, session.writer) }
          : undefined;
      });
      if (result) return result.value;
      await this.#completeSnapshot(options);
      await onFiles(this.key, () => this.#gate.exclusive(() => this.#startSession()));
    }
  }

  // Files

  #look(): Promise<Look> {
    return this.#files.look();
  }

  /** Needs no look before: the reader takes one after it has read, and that one tells. */
  async #readSnapshot(
    snapshot: string,
    offset: number,
    lengthBytes: number,
    place: Uint8Array | undefined,
  ): Promise<Uint8Array> {
    for (;;) {
      const known = await this.#files.open();
      // What is known may be of a blob that was removed, and shorter.
      const handles = offset + lengthBytes > known.sizeBytes ? await this.#look() : known;
      checkRead(this.key, offset, lengthBytes, handles.sizeBytes);
      const into = roomFor(lengthBytes, place);
      if (await handles.reader.read(this.#number(snapshot), into, offset)) return into;
      await this.#files.forget(known);
    }
  }

  /** A snapshot whose creation a crash cut short exists; other processes learn of it by the version. */
  async #completeSnapshot(options: CallOptions | undefined): Promise<void> {
    const isCut = async ({ state }: Look): Promise<boolean> =>
      ((await snapshotNumbers(this.#context.files, this.#paths)).at(-1) ?? 0) > state.lastSnapshot;
    if (!(await this.#shared(options, async () => isCut(await this.#look())))) return;
    await this.#alone(options, async (held) => {
      const look = await this.#look();
      if (!(await isCut(look))) return;
      const newest = (await snapshotNumbers(this.#context.files, this.#paths)).at(-1) ?? 0;
      await this.#snapshotsChanged(held, look, newest);
    });
  }

  async #startSession(): Promise<void> {
    await this.#endSession();
    const { live, state } = await this.#look();
    const { files, directory } = this.#context;
    await syncNames(files, directory, this.#paths.sidecar);
    const writer = await FolderWriter.open(files, this.#paths, live, state.sizeBytes);
    this.#session = { writer, snapshotsVersion: state.snapshotsVersion };
  }

  async #endSession(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    await session?.writer.close();
  }

  /** False if there is no such snapshot. */
  async #handDown(number: number): Promise<boolean> {
    const { files } = this.#context;
    const look = await this.#files.lookIfThere();
    const numbers = await snapshotNumbers(files, this.#paths);
    if (look === undefined || !numbers.includes(number)) return false;
    // Some systems do not remove files that are open.
    await look.reader.close();
    await this.#endSession();
    const older = numbers.filter((other) => other < number).at(-1);
    if (older === undefined) return true;
    const [from, into] = [undoPath(this.#paths, number), undoPath(this.#paths, older)];
    const { sizeBytes } = look.state;
    await mergeInto(files, { from, fromNumber: number, into, intoNumber: older, sizeBytes });
    return true;
  }

  async #snapshotsChanged(held: HeldLock, look: Look, lastSnapshot: number): Promise<void> {
    const snapshotsVersion = look.state.snapshotsVersion + 1;
    await this.#change(held, look, { lastSnapshot, snapshotsVersion });
  }

  async #change(held: HeldLock, { stateFile, state }: Look, change: StateChange): Promise<void> {
    await held.verify();
    await stateFile.change(state, change);
  }

  async #sync(live: RandomAccessFile): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken;
    try {
      await live.sync();
    } catch (error) {
      this.#broken = error;
      throw error;
    }
  }

  #subject(): Subject {
    return { key: this.key, nowMs: this.#context.clock.nowMs() };
  }

  #number(snapshot: string): number {
    const number = snapshotNumber(snapshot);
    if (number === undefined) throw this.#noSnapshot(snapshot);
    return number;
  }

  #noSnapshot(snapshot: string): BlockferryError {
    return new BlockferryError('STORE_NOT_FOUND', `${this.key} has no snapshot ${JSON.stringify(snapshot)}`, {
      facts: { source: this.key, snapshot },
    });
  }
}
