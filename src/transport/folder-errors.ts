/** Errors of the operating system, as a store reports them. */
import { BlockferryError, type ErrorCode } from '../errors.ts';

interface Verdict {
  readonly code: ErrorCode;
  readonly retryable?: boolean;
  readonly hint?: string;
}

const DENIED: Verdict = { code: 'STORE_REFUSED', hint: 'check owner and permissions of the folder' };
const FULL: Verdict = { code: 'STORE_FULL', hint: 'free space on the volume of the folder, then run again' };
/** A network share that went away. */
const AWAY: Verdict = { code: 'STORE_UNREACHABLE', retryable: true, hint: 'check that the volume is mounted' };

const BY_CODE: Readonly<Record<string, Verdict>> = {
  ENOENT: { code: 'STORE_NOT_FOUND' },
  EACCES: DENIED,
  EPERM: DENIED,
  EROFS: DENIED,
  EBADF: DENIED,
  ENOSPC: FULL,
  EDQUOT: FULL,
  EFBIG: { code: 'STORE_FULL', hint: 'the file system of the folder does not hold files of this size' },
  ESTALE: AWAY,
  ETIMEDOUT: AWAY,
  EHOSTDOWN: AWAY,
  ENOTCONN: AWAY,
  EMFILE: { code: 'STORE_UNREACHABLE', retryable: true, hint: 'raise the limit of open files (ulimit -n)' },
};

/** Whether `error` is one of the operating system with this code. */
export function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === code;
}

/** An error of a file call as ours; errors that are ours, and those of arguments, pass through. */
export function folderError(error: unknown, subject: string): unknown {
  if (error instanceof BlockferryError || !(error instanceof Error)) return error;
  const { code } = error as NodeJS.ErrnoException;
  if (code === undefined || code.startsWith('ERR_')) return error;
  const verdict = BY_CODE[code] ?? { code: 'STORE_REFUSED' };
  return new BlockferryError(verdict.code, `${subject}: ${error.message}`, {
    cause: error,
    facts: { source: subject, cause: code },
    retryable: verdict.retryable ?? false,
    ...(verdict.hint === undefined ? {} : { hint: verdict.hint }),
  });
}

/** Runs file calls for `subject` and translates their failure. */
export async function onFiles<T>(subject: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw folderError(error, subject);
  }
}

/** The error for a key whose file is no plain object. */
export function notAnObject(key: string, why: string): BlockferryError {
  return new BlockferryError('STORE_REFUSED', `${key} is no object: ${why}`, { facts: { source: key } });
}
