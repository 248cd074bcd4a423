/**
 * Intake: the socket of a client, read into memory that is used again.
 *
 * A socket that a server accepts brings each piece in memory of its own, which counts until it is collected: at 130 MB a
 * second V8 goes through the whole heap ten times a second, a third of what writes of 64 KiB cost. A socket can be told to
 * read into buffers that it is given (`onread`), but only where it is made, and `net.Server` makes it. So another one is made
 * over the same handle; the first stays as what the server counts. `_handle` is not part of Node's interface: where it is not
 * what we know, pieces come as they would anyway.
 */
import { type OnReadOpts, Socket } from 'node:net';
import { KIB } from '../../bytes.ts';

/** More than the system holds for a socket by default. */
export const READ_BYTES: number = 256 * KIB;
/** A piece that is shorter is copied, so that it does not keep a whole buffer. */
const KEPT_BYTES_MIN: number = 8 * KIB;

export interface IntakeSetup {
  /** A buffer of READ_BYTES; it is the intake's until `onPiece` gets it. */
  readonly takeBuffer: () => Buffer;
  /** Takes it back. */
  readonly giveBack: (buffer: Buffer) => void;
  /** `buffer`: what the piece lies in, to be used again when nobody looks at it any more; undefined if the piece is no part of one. */
  readonly onPiece: (piece: Buffer, buffer: Buffer | undefined) => void;
}

interface WithHandle {
  _handle: object | null;
}

/** The socket to work with in place of one that a server accepted with `pauseOnConnect`. It reads at once. */
export function openIntake(accepted: Socket, { takeBuffer, giveBack, onPiece }: IntakeSetup): Socket {
  let buffer = takeBuffer();
  const onread = {
    buffer: () => buffer,
    callback: (lengthBytes: number, filled: Uint8Array): boolean => {
      if (filled !== buffer || lengthBytes < KEPT_BYTES_MIN) {
        onPiece(Buffer.from(filled.subarray(0, lengthBytes)), undefined);
        return true;
      }
      const piece = buffer.subarray(0, lengthBytes);
      const whole = buffer;
      buffer = takeBuffer();
      onPiece(piece, whole);
      return true;
    },
  };
  const socket = overHandle(accepted, onread) ?? accepted;
  socket.on('data', (piece: Buffer) => onPiece(piece, undefined)).resume();
  socket.on('close', () => giveBack(buffer));
  return socket;
}

/** undefined where this Node does not work as we know it. */
function overHandle(accepted: Socket, onread: OnReadOpts): Socket | undefined {
  const first = accepted as unknown as WithHandle;
  const handle = first._handle;
  if (typeof handle !== 'object' || handle === null || !('useUserBuffer' in handle)) return undefined;
  const options = { handle, allowHalfOpen: true, onread };
  const socket = new Socket(options);
  if ((socket as unknown as WithHandle)._handle !== handle) return undefined;
  socket.on('close', () => {
    first._handle = null;
    accepted.destroy();
  });
  return socket;
}
