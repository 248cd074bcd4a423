/**
 * Checking a disk: every structural rule of its format, in every file of its chain, going on after a fault.
 */
import { isBlockferryError } from '../errors.ts';
import type { Ports, RandomAccessFile } from '../ports.ts';
import { openSource } from './chain.ts';
import type { CheckLayer, LayerCheck, LayerContext } from './layer.ts';
import { detectFormat, layerContext, openDisk } from './open-disk.ts';
import { openRaw } from './raw-disk.ts';
import { checkVhd } from './vhd-check.ts';
import { checkVhdx } from './vhdx-layer.ts';
import type { DiskFault, DiskFormat, DiskInfo } from './virtual-disk.ts';

/** What a check found. */
export interface DiskCheck {
  /** Present if the disk can be opened; its notes are those of the check. */
  readonly info?: DiskInfo;
  /** Empty: the disk is sound. */
  readonly faults: readonly DiskFault[];
}

/** How to check a disk. */
export interface CheckDiskOptions {
  readonly ports: Pick<Ports, 'files'>;
  /** Directories under which parents may lie. Default: the directory of the disk itself. */
  readonly allowedRoots?: readonly string[];
}

const CHECKERS: Readonly<Record<DiskFormat, CheckLayer>> = { raw: checkRaw, vhd: checkVhd, vhdx: checkVhdx };

/**
 * Checks a disk and, where the chain can be followed, its parents.
 * @throws DISK_NOT_FOUND, DISK_UNREADABLE if the disk's own file cannot be read at all
 */
export async function checkDisk(path: string, options: CheckDiskOptions): Promise<DiskCheck> {
  const { files } = options.ports;
  const first = await checkFile(path, options);
  const faults = [...first.faults];
  const notes = [...first.notes];
  try {
    const disk = await openDisk(path, options);
    try {
      for (const parent of disk.info.chain.slice(1)) {
        const found = await checkFile(parent, { ports: { files } });
        faults.push(...found.faults);
        notes.push(...found.notes.map((note) => `${parent}: ${note}`));
      }
      return { info: { ...disk.info, notes }, faults };
    } finally {
      await disk.close();
    }
  } catch (error) {
    if (!isBlockferryError(error)) throw error;
    const { source, offset, rule } = error.facts;
    const isKnown = faults.some((fault) => fault.code === error.code && fault.offset === offset);
    const file = typeof source === 'string' ? source : path;
    const at = typeof offset === 'number' ? offset : 0;
    const broken = typeof rule === 'string' ? rule : error.message;
    if (!isKnown) faults.push({ file, offset: at, rule: broken, code: error.code });
    return { faults };
  }
}

async function checkFile(path: string, options: CheckDiskOptions): Promise<LayerCheck> {
  const context = layerContext(options.ports.files);
  const file = await openSource(path, options.ports.files);
  try {
    return await CHECKERS[await detectFormat(file)](file, context);
  } finally {
    await file.close();
  }
}

/** A raw disk has no structure besides its size. */
async function checkRaw(file: RandomAccessFile, _context: LayerContext): Promise<LayerCheck> {
  try {
    return { faults: [], notes: (await openRaw(file)).notes };
  } catch (error) {
    if (!isBlockferryError(error)) throw error;
    const { rule } = error.facts;
    return {
      faults: [{ file: file.path, offset: 0, rule: String(rule ?? error.message), code: error.code }],
      notes: [],
    };
  }
}
