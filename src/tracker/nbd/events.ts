/** What an NBD server tells its owner. Nothing of it is the owner's to mend at once: the server goes on. */

export interface NbdEvent {
  /**
   * - `CLIENT_OPENED`, `CLIENT_CLOSED`: a connection works with a disk from now on, or no more
   * - `CLIENT_DROPPED`: a connection was cut off for what its client did
   * - `CLIENT_REFUSED`: a client was not let in
   * - `DEVICE_FAILED`: a disk could not do what a client asked; the client was told EIO or ENOSPC
   */
  readonly code: 'CLIENT_OPENED' | 'CLIENT_CLOSED' | 'CLIENT_DROPPED' | 'CLIENT_REFUSED' | 'DEVICE_FAILED';
  readonly message: string;
  /** What happened, for `CLIENT_DROPPED` (NBD_PROTOCOL), `CLIENT_REFUSED` and `DEVICE_FAILED`. */
  readonly error?: unknown;
}
