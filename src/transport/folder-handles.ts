/** The open files of a page blob in a folder. */
import { BlockferryError } from '../errors.ts';
import type { FileSystem, RandomAccessFile } from '../ports.ts';
import { isErrno } from './folder-errors.ts';
import type { BlobPaths } from './folder-layout.ts';
import { SnapshotReader } from './folder-snapshots.ts';
import { type BlobState, StateFile } from './folder-state.ts';

export interface Handles {
  readonly live: RandomAccessFile;
  readonly stateFile: StateFile;
  readonly reader: SnapshotReader;
  /** Of the blob: never changes. */
  readonly sizeBytes: number;
}

/** The open files with the state as it is now. */
export interface Look extends Handles {
  readonly state: BlobState;
}

/** To read and write, or to read alone where the folder allows no more. */
async function openEither(files: FileSystem, path: string): Promise<RandomAccessFile> {
  try {
    return await files.open(path, 'modify');
  } catch (error) {
    if (isErrno(error, 'EACCES') || isErrno(error, 'EPERM') || isErrno(error, 'EROFS')) {
      return await files.open(path, 'read');
    }
    throw error;
  }
}

/** @throws ENOENT as the operating system's error; STORE_REFUSED if it is no page blob, or its file was cut. */
async function openHandles(files: FileSystem, paths: BlobPaths, key: string): Promise<Handles> {
  const live = await openEither(files, paths.live);
  let stateFile: StateFile | undefined;
  try {
    if (!(await files.exists(paths.state))) {
      throw new BlockferryError('STORE_REFUSED', `${key} is a plain file, not a page blob: ${paths.state} is missing`, {
        facts: { source: paths.live, rule: 'a page blob has its state beside it' },
      });
    }
    stateFile = new StateFile(await openEither(files, paths.state));
    const [state, sizeBytes] = [await stateFile.read(), await live.sizeBytes()];
    if (sizeBytes !== state.sizeBytes) {
      throw new BlockferryError('STORE_REFUSED', `${paths.live} has ${sizeBytes} bytes instead of ${state.sizeBytes}`, {
        facts: { source: paths.live, sizeBytes, rule: `the file keeps its ${state.sizeBytes} bytes` },
        hint: 'restore the file from a backup of the folder, or protect the item anew',
      });
    }
    return { live, stateFile, reader: new SnapshotReader(files, paths, live, stateFile), sizeBytes };
  } catch (error) {
    await stateFile?.close();
    await live.close();
    throw error;
  }
}

/** The files of a page blob, opened when they are asked for; those of a blob that another process removed are let go. */
export class BlobFiles {
  readonly #files: FileSystem;
  readonly #paths: BlobPaths;
  readonly #key: string;
  readonly #beforeClose: () => Promise<void>;
  #handles: Promise<Handles> | undefined;

  constructor(files: FileSystem, paths: BlobPaths, key: string, beforeClose: () => Promise<void>) {
    this.#files = files;
    this.#paths = paths;
    this.#key = key;
    this.#beforeClose = beforeClose;
  }

  /** Whatever became of the blob since they were opened. @throws STORE_NOT_FOUND */
  async open(): Promise<Handles> {
    return (await this.#openIfThere()) ?? this.#isAbsent();
  }

  /** @throws STORE_NOT_FOUND */
  async look(): Promise<Look> {
    return (await this.lookIfThere()) ?? this.#isAbsent();
  }

  async lookIfThere(): Promise<Look | undefined> {
    for (;;) {
      const handles = await this.#openIfThere();
      if (handles === undefined) return undefined;
      const state = await handles.stateFile.read();
      if (!state.removed) return { ...handles, state };
      await this.forget(handles);
    }
  }

  /** Closes the files of a blob that another process has removed, and perhaps created anew. */
  async forget(handles: Handles): Promise<void> {
    if ((await this.#handles?.catch(() => undefined)) === handles) await this.close();
  }

  async close(): Promise<void> {
    await this.#beforeClose();
    const opening = this.#handles;
    this.#handles = undefined;
    const handles = await opening?.catch(() => undefined);
    await handles?.reader.close();
    await handles?.stateFile.close();
    await handles?.live.close();
  }

  async #openIfThere(): Promise<Handles | undefined> {
    this.#handles ??= openHandles(this.#files, this.#paths, this.#key);
    const opening = this.#handles;
    try {
      return await opening;
    } catch (error) {
      if (this.#handles === opening) this.#handles = undefined;
      if (isErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
  }

  #isAbsent(): never {
    throw new BlockferryError('STORE_NOT_FOUND', `${this.#key} is not there`, { facts: { source: this.#key } });
  }
}
