/**
 * Where the stages of a failback lie: `<disk>.failback/` beside each disk, or `<retention>/<item>/d0` …, d1 … in a folder on another volume.
 * The home remembers the latter in `stages.json` before the first of them is made, so that whoever serves, cancels or goes on finds them.
 */
import { join, resolve } from 'node:path';
import type { FileSystem } from '../../ports.ts';
import { canonicalJson, hasStage, JsonReader } from '../../replica/index.ts';
import type { LocalItem } from '../local-state.ts';
import { checkRetention } from './retention-folder.ts';

const STAGES_BYTES_MAX = 1 << 20;
const STAGES_MAX = 256;
const PATH_CHARACTERS_MAX = 4096;

interface Place {
  /** Of the disk. */
  readonly path: string;
  readonly directory: string;
}

/** The folder of each disk's stage, in their order. */
export async function stageDirectories(
  item: LocalItem,
  disks: readonly string[],
  files: FileSystem,
): Promise<readonly string[]> {
  const places = await loadPlaces(item, files);
  return disks.map((path) => placeOf(places, path));
}

/**
 * The same for a failback that begins: a stage that is there stays where it is; else they are to lie in `retention`, where one is named.
 * @throws OUTPUT_FAILED for a folder that breaks a rule of retention folders
 */
export async function placeStages(
  item: LocalItem,
  disks: readonly string[],
  retention: string | undefined,
  { home, files }: { readonly home: string; readonly files: FileSystem },
): Promise<readonly string[]> {
  const before = await loadPlaces(item, files);
  const found: string[] = [];
  for (const path of disks) if (await hasStage(placeOf(before, path), files)) found.push(path);
  if (found.length > 0) return disks.map((path) => placeOf(before, path));
  const others = before.filter(({ path }) => !disks.includes(path));
  if (retention === undefined) {
    if (others.length < before.length) await savePlaces(item, others, files);
    return disks.map((path) => placeOf([], path));
  }
  const folder = resolve(retention);
  await checkRetention(folder, { home, disks }, files);
  const places = disks.map((path, i) => ({ path, directory: join(folder, item.name, `d${i}`) }));
  await savePlaces(item, [...others, ...places], files);
  return places.map(({ directory }) => directory);
}

/** The stages of these disks are gone. */
export async function forgetStages(item: LocalItem, disks: readonly string[], files: FileSystem): Promise<void> {
  const before = await loadPlaces(item, files);
  const left = before.filter(({ path }) => !disks.includes(path));
  if (left.length < before.length) await savePlaces(item, left, files);
}

function placeOf(places: readonly Place[], path: string): string {
  return places.find((place) => place.path === path)?.directory ?? `${path}.failback`;
}

async function loadPlaces(item: LocalItem, files: FileSystem): Promise<readonly Place[]> {
  const path = join(item.directory, 'stages.json');
  const bytes = await files.readSmall(path, STAGES_BYTES_MAX);
  if (!bytes) return [];
  return JsonReader.parse(bytes, path, 'LOCAL_STATE')
    .field('stages')
    .list(STAGES_MAX)
    .map((stage) => ({
      path: stage.field('path').string(PATH_CHARACTERS_MAX),
      directory: stage.field('directory').string(PATH_CHARACTERS_MAX),
    }));
}

async function savePlaces(item: LocalItem, places: readonly Place[], files: FileSystem): Promise<void> {
  const path = join(item.directory, 'stages.json');
  if (places.length === 0) return files.remove(path);
  const body = { stages: places.map((place) => ({ ...place })) };
  await files.replace(path, Buffer.from(`${canonicalJson(body)}\n`));
}
