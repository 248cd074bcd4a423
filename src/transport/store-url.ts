/**
 * What the URL of a store says: which kind of store, and where. Nothing is opened here, and no SAS is ever repeated in an
 * error.
 */
import { isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BlockferryError } from '../errors.ts';

/** The account of every emulator. */
export const EMULATOR_ACCOUNT = 'devstoreaccount1';

/** The error for a URL or credential that cannot be one of a store. */
export function usage(message: string, hint: string): BlockferryError {
  return new BlockferryError('USAGE', message, { hint });
}

/** The hint for a URL that is none of a store. */
export const URL_FORMS =
  'write https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX, http://127.0.0.1:10000/devstoreaccount1/CONTAINER/PREFIX, file:///DIR or gateway+https://HOST:PORT/STORE/PREFIX';

/** The directory that a `file:` URL names. @throws USAGE */
export function folderOf(url: URL): string {
  if (url.search !== '' || url.hash !== '') throw usage('the URL of a folder ends with its path', URL_FORMS);
  let path: string;
  try {
    path = fileURLToPath(url);
  } catch {
    throw usage(`${url.href} is no path on this machine`, 'write file:///DIR, with three slashes and an absolute path');
  }
  if (!isAbsolute(path) || path.includes('\0')) throw usage(`${url.href} is no absolute path`, URL_FORMS);
  return join(path, '.');
}

/** Where in which account. */
export interface AzureAddress {
  /** Of the account, without query. */
  readonly endpoint: string;
  readonly account: string;
  readonly container: string;
  readonly prefix: string;
}

const CONTAINER = /^(?:\$root|\$web|[a-z0-9](?:-?[a-z0-9]){2,62})$/;
/** What a URL writes without escapes; `.` and `..` are gone before (the URL parser resolves them). */
export const PREFIX_SEGMENT = /^[A-Za-z0-9._~-]+$/;
const IP_OR_LOCAL = /^(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:]+\])$/i;

/** Splits a URL of Azure; emulators and private endpoints by IP name the account in the path. @throws USAGE */
export function addressOf(url: URL): AzureAddress {
  if (url.username !== '' || url.password !== '') throw usage('a store URL carries no user name', URL_FORMS);
  if (url.search !== '' && !url.searchParams.has('sig')) {
    throw usage('the query of the URL is no SAS: it has no "sig"', 'put the URL in quotes: a shell cuts it at &');
  }
  const segments = url.pathname.split('/').filter((segment) => segment !== '');
  const byPath = IP_OR_LOCAL.test(url.hostname) || segments[0] === EMULATOR_ACCOUNT;
  const account = byPath ? segments.shift() : url.hostname.split('.')[0];
  const container = segments.shift();
  const prefix = segments.join('/');
  const shown = `${url.origin}${url.pathname}`;
  if (account === undefined || container === undefined) throw usage(`${shown} names no container`, URL_FORMS);
  if (!CONTAINER.test(container)) {
    throw usage(`"${container}" is no container name`, 'container names have 3 to 63 of a-z, 0-9 and single hyphens');
  }
  if (!segments.every((segment) => PREFIX_SEGMENT.test(segment))) {
    throw usage(`"${prefix}" cannot be a prefix`, 'prefixes have letters, digits and . _ ~ - with slashes between');
  }
  if (url.protocol === 'http:' && account !== EMULATOR_ACCOUNT && !IP_OR_LOCAL.test(url.hostname)) {
    throw usage(`${url.origin} would be reached without encryption`, 'write https://');
  }
  return { endpoint: byPath ? `${url.origin}/${account}` : url.origin, account, container, prefix };
}
