/** Figures as people read them. */
import { GIB, KIB, MIB } from './lab.ts';

/** Three figures at most, and no zeros that say nothing. */
function short(value: number): string {
  if (Math.abs(value) >= 100) return String(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

export function milliseconds(ms: number): string {
  if (ms < 1) return `${short(ms * 1000)} µs`;
  return ms < 1000 ? `${short(ms)} ms` : `${short(ms / 1000)} s`;
}

export function bytesText(bytes: number): string {
  const [unit, size] =
    bytes >= GIB ? ['GiB', GIB] : bytes >= MIB ? ['MiB', MIB] : bytes >= KIB ? ['KiB', KIB] : ['B', 1];
  return `${short(bytes / Number(size))} ${unit}`;
}

export function gigabytesPerSecond(bytes: number, us: number): string {
  const rate = bytes / us / 1000;
  return rate < 1 ? `${short(rate * 1000)} MB/s` : `${short(rate)} GB/s`;
}

/** A count by what its name ends in. */
export function countText(name: string, value: number): string {
  if (name.endsWith('Bytes')) return bytesText(value);
  if (name.endsWith('Us')) return milliseconds(value / 1000);
  if (name.endsWith('Ms')) return milliseconds(value);
  return value.toLocaleString('en-US');
}

/** `writesPerSecond` as `writes per second`, `p999Us` as `p99.9`, `sentBytes` as `sent`. */
export function countName(name: string): string {
  const percentile = /^p(\d\d)(\d*)Us$/.exec(name);
  if (percentile) return `p${percentile[1]}${percentile[2] ? `.${percentile[2]}` : ''}`;
  return name
    .replace(/(?:Bytes|Ms|Us)$/, '')
    .replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)
    .trim();
}
