/** The open files of a page blob in a folder. */
import { BlockferryError } from '../errors.ts';
import type { FileSystem, RandomAccessFile } from '../ports.ts';
import { isErrno } from './folder-errors.ts';
import type { BlobPaths } from './folder-layout.ts';
import { SnapshotReader } from './folder-snapshots.ts';
import { type BlobState, readState } from './folder-state.ts';

export interface Handles {
  readonly live: RandomAccessFile;
  readonly stateFile: RandomAccessFile;
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
export async function openHandles(files: FileSystem, paths: BlobPaths, key: string): Promise<Handles> {
  const live = await openEither(files, paths.live);
  let stateFile: RandomAccessFile | undefined;
  try {
    if (!(await files.exists(paths.state))) {
      throw new BlockferryError('STORE_REFUSED', `${key} is a plain file, not a page blob: ${paths.state} is missing`, {
        facts: { source: paths.live, rule: 'a page blob has its state beside it' },
      });
    }
    stateFile = await openEither(files, paths.state);
    const [state, sizeBytes] = [await readState(stateFile), await live.sizeBytes()];
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
