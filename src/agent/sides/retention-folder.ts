/**
 * The folder in which a side that machines come home to keeps what it fetched: as published for the retention drive of a master target, a
 * volume of its own, neither that of the program nor that of its state, no FAT, writable, with room. A judgement over facts, and how they
 * are gathered.
 */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BlockferryError } from '../../errors.ts';
import type { FileSystem, VolumeFacts } from '../../ports.ts';

export interface RetentionFacts {
  readonly directory: string;
  /** undefined: there is no such directory. */
  readonly volume?: VolumeFacts;
  readonly isWritable: boolean;
  readonly totalBytes: number;
  /** What else lies where, which must be on other volumes. */
  readonly others: readonly { readonly what: string; readonly volume: VolumeFacts }[];
}

/** Which rule it breaks, and how. */
export interface RetentionFault {
  readonly rule: 'exists' | 'own-volume' | 'file-system' | 'writable' | 'capacity';
  readonly message: string;
}

/** Why a folder cannot be one; undefined if it can. */
export function retentionFault({
  directory,
  volume,
  isWritable,
  totalBytes,
  others,
}: RetentionFacts): RetentionFault | undefined {
  if (!volume) return { rule: 'exists', message: `${directory} is not there` };
  if (!(totalBytes > 0)) return { rule: 'capacity', message: `the volume of ${directory} has no capacity` };
  if (volume.kind === 'fat') {
    return {
      rule: 'file-system',
      message: `the volume of ${directory} is a FAT file system, whose files end at 4 GiB`,
    };
  }
  const shared = others.find((other) => other.volume.identity === volume.identity);
  if (shared) return { rule: 'own-volume', message: `${directory} is on the same volume as ${shared.what}` };
  return isWritable ? undefined : { rule: 'writable', message: `${directory} cannot be written` };
}

export interface RetentionPlaces {
  readonly home: string;
  readonly disks: readonly string[];
}

/** Looks at a folder. Writes a file into it and removes it: permissions alone do not say whether a volume takes writes. */
export async function retentionFacts(
  directory: string,
  { home, disks }: RetentionPlaces,
  files: FileSystem,
): Promise<RetentionFacts> {
  if (!(await files.exists(directory))) return { directory, isWritable: false, totalBytes: 0, others: [] };
  const places = [
    ['the program', dirname(fileURLToPath(import.meta.url))],
    ['the home', home],
    ...disks.map((disk) => [`disk ${disk}`, dirname(disk)] as const),
  ] as const;
  const others: RetentionFacts['others'][number][] = [];
  for (const [what, place] of places) {
    if (await files.exists(place)) others.push({ what, volume: await files.volume(place) });
  }
  const [volume, totalBytes] = [await files.volume(directory), await files.volumeBytes(directory)];
  return { directory, volume, totalBytes, others, isWritable: await takesWrites(directory, files) };
}

/** @throws OUTPUT_FAILED for a folder that breaks a rule */
export async function checkRetention(directory: string, places: RetentionPlaces, files: FileSystem): Promise<void> {
  const fault = retentionFault(await retentionFacts(directory, places, files));
  if (!fault) return;
  throw new BlockferryError('OUTPUT_FAILED', `no retention folder: ${fault.message}`, {
    facts: { directory, rule: fault.rule },
    hint: 'name a folder on a volume of its own, or leave it out: then what is fetched lies beside the disks',
  });
}

async function takesWrites(directory: string, files: FileSystem): Promise<boolean> {
  const path = join(directory, '.blockferry-probe');
  try {
    await files.replace(path, new Uint8Array(1));
    await files.remove(path);
    return true;
  } catch {
    return false;
  }
}
