/** The ports on a real machine. Only src/index.ts, the CLI's entry and the worker thread know this room. */
import type { Failpoint, Ports } from '../ports.ts';
import { nodeClock, nodeRandom } from './node-clock.ts';
import { nodeFileSystem } from './node-files.ts';
import { lockDirectory } from './process-lock.ts';

export { parseFailpoints } from './failpoints.ts';
export { nodeClock, nodeRandom } from './node-clock.ts';
export { nodeFileSystem } from './node-files.ts';
export { lockDirectory } from './process-lock.ts';

/** All ports of this machine; failpoints do nothing unless given. */
export function nodePorts(failpoint: Failpoint = () => {}): Ports {
  const files = nodeFileSystem();
  const lock: Ports['lock'] = (directory, what) => lockDirectory(directory, what, files);
  return { clock: nodeClock, random: nodeRandom, files, failpoint, lock };
}
