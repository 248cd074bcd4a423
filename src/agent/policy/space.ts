/** What free space allows, by the published shares of a process server: 30, 25 and 20 % of the volume. */

/** `low`: warn. `throttle`: let in less than goes out. `stop`: take nothing more in. */
export type SpaceVerdict = 'ok' | 'low' | 'throttle' | 'stop';

const LOW_BELOW = 0.3;
const THROTTLE_BELOW = 0.25;
const STOP_BELOW = 0.2;

export function spaceVerdict(freeBytes: number, totalBytes: number): SpaceVerdict {
  if (!(freeBytes >= 0) || !(totalBytes > 0)) throw new RangeError(`${freeBytes} of ${totalBytes} bytes free`);
  const share = freeBytes / totalBytes;
  if (share < STOP_BELOW) return 'stop';
  if (share < THROTTLE_BELOW) return 'throttle';
  return share < LOW_BELOW ? 'low' : 'ok';
}
