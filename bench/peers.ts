/** The repositories of other backup programs, encrypted as ours are, made anew for each run. */
import { type Lab, removeTree } from './lab.ts';
import { type Command, run } from './measure.ts';

export interface Repository {
  readonly path: string;
  /** For the environment of its commands. */
  readonly env: Readonly<Record<string, string>>;
  readonly command: (...args: readonly string[]) => Command;
  /** Makes it, empty. */
  readonly make: () => Promise<void>;
  readonly remove: () => Promise<void>;
}

/** For measurements: it protects nothing. */
const PASSPHRASE = 'bench';

export function resticRepository(lab: Lab): Repository {
  const path = lab.target('restic');
  const env = { RESTIC_PASSWORD: PASSPHRASE, RESTIC_REPOSITORY: path };
  return {
    path,
    env,
    command: (...args) => ['restic', '--quiet', ...args],
    make: async () => {
      await removeTree(path);
      await run(['restic', '--quiet', 'init', '--repository-version', '2'], { env });
    },
    remove: () => removeTree(path),
  };
}

export function borgRepository(lab: Lab): Repository {
  const [path, base] = [lab.target('borg'), lab.target('borg-base')];
  const env = { BORG_PASSPHRASE: PASSPHRASE, BORG_BASE_DIR: base, BORG_RELOCATED_REPO_ACCESS_IS_OK: 'yes' };
  return {
    path,
    env,
    command: (...args) => ['borg', ...args],
    make: async () => {
      await removeTree(path);
      await removeTree(base);
      await run(['borg', 'init', '--encryption', 'repokey', path], { env });
    },
    remove: async () => {
      await removeTree(path);
      await removeTree(base);
    },
  };
}
