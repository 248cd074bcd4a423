/** ByteQueue: bytes that come in pieces of any size and leave in pieces of the sizes that are asked for. */

export class ByteQueue {
  readonly #pieces: Buffer[] = [];
  #lengthBytes = 0;

  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  /** The piece is the queue's from now on. */
  push(piece: Buffer): void {
    this.#pieces.push(piece);
    this.#lengthBytes += piece.byteLength;
  }

  /** The next `lengthBytes` bytes; undefined while there are fewer. */
  take(lengthBytes: number): Buffer | undefined {
    if (lengthBytes > this.#lengthBytes) return undefined;
    // Joined at most once for each time that enough has come, not once for each piece.
    const all = this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces);
    this.#lengthBytes -= lengthBytes;
    this.#pieces.length = 0;
    if (this.#lengthBytes > 0) this.#pieces.push(all.subarray(lengthBytes));
    return all.subarray(0, lengthBytes);
  }
}
