/** Values of the configuration file that are written as text: spans of time, moments, addresses. */
import { isSafeFileName } from '../../replica/index.ts';

const UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** `30s`, `5min`, `1h 30min` → milliseconds. @throws RangeError */
export function parseDuration(text: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)\s*([a-z]+)\s*/gi)];
  const isWhole = parts.length > 0 && parts.map(([part]) => part).join('') === text;
  const ms = parts.reduce(
    (sum, [, count, unit]) => sum + Number(count) * (UNITS[unit!.toLowerCase()] ?? Number.NaN),
    0,
  );
  if (isWhole && Number.isSafeInteger(ms)) return ms;
  throw new RangeError(`"${text}" is no span of time; write for example 30s, 5min, 1h or 1d`);
}

/** A parser for spans from `minMs` to `maxMs`. */
export function durationBetween(min: string, max: string): (text: string) => number {
  const [minMs, maxMs] = [parseDuration(min), parseDuration(max)];
  return (text) => {
    const ms = parseDuration(text);
    if (ms >= minMs && ms <= maxMs) return ms;
    throw new RangeError(`"${text}" is outside ${min} to ${max}`);
  };
}

/** ISO 8601 with a zone, so that it means one moment everywhere. @throws RangeError */
export function parseMoment(text: string): number {
  const ms = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)$/.test(text)
    ? Date.parse(text)
    : Number.NaN;
  if (Number.isFinite(ms)) return ms;
  throw new RangeError(`"${text}" is no moment; write for example 2026-12-01T22:00:00Z or 2026-12-01T23:00:00+01:00`);
}

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** `HOST:PORT`. @throws RangeError */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([0-9a-f:]+)\]|([^:[\]]+)):(\d{1,5})$/i.exec(text);
  const host = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3]);
  if (match && port <= 65_535) return { host, port };
  throw new RangeError(`"${text}" is no address; write for example 127.0.0.1:9464`);
}

/** Whether a host is this machine, and nobody else can reach it. */
export function isLoopback(host: string): boolean {
  return host === '::1' || host === 'localhost' || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/** `HOST:PORT` on the loopback; whoever reads there needs no password. @throws RangeError */
export function parseLoopback(text: string): Address {
  const address = parseAddress(text);
  if (isLoopback(address.host)) return address;
  const { host } = address;
  throw new RangeError(`"${host}" is not the loopback; use 127.0.0.1 or ::1, and a proxy with a password for others`);
}

/** URL of a store, without secrets in it. @throws RangeError */
export function parseStoreUrl(text: string): string {
  if (text.includes('?')) throw new RangeError('it carries a SAS; use connection-string-file, or a managed identity');
  if (/^(?:(?:gateway\+)?https?|file):\/\/./.test(text) && URL.canParse(text)) return text;
  throw new RangeError(
    `"${text}" is no URL of a store, such as file:///DIR or https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX`,
  );
}

/** Of a machine or a group; it names files. */
export function parseName(text: string): string {
  if (isSafeFileName(text) && text.length <= 128) return text;
  throw new RangeError(`"${text}" is no name; use letters, digits, blanks, dots, hyphens and underscores`);
}
