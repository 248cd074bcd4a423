/** The body of an answer, read into memory that the caller has bounded. */

/**
 * Copies a body into `into` and returns its length; a body that is longer stops at `into.byteLength + 1`, which no
 * caller accepts. A body that breaks off ends early instead of failing: the length tells.
 */
export async function collect(body: NodeJS.ReadableStream | undefined, into: Buffer): Promise<number> {
  let done = 0;
  if (body === undefined) return done;
  for await (const piece of body as AsyncIterable<Buffer>) {
    if (done + piece.byteLength > into.byteLength) return into.byteLength + 1;
    piece.copy(into, done);
    done += piece.byteLength;
  }
  return done;
}

/** Gives up a body that nobody will read, and the connection with it. */
export function discard(body: NodeJS.ReadableStream | undefined): void {
  (body as { destroy?: () => void } | undefined)?.destroy?.();
}
