/**
 * What a worker does with frames of shipped logs: reads pieces of change logs and seals them, or opens a frame that was
 * fetched. Synchronous from end to end. Memory: one frame in the builder, and the buffer that came with the task.
 */
import {
  type Codec,
  createCodec,
  LogFrameBuilder,
  LogFrameCipher,
  type LogIdentity,
  type SealingContext,
} from '../chunker/index.ts';
import { BlockferryError } from '../errors.ts';
import { readUpTo } from './file-ranges.ts';
import {
  type OpenFrameResult,
  type OpenFrameTask,
  PIECE_FIELDS,
  PIECE_SOURCE,
  type SealFrameResult,
  type SealFrameTask,
  type WorkerSetup,
} from './protocol.ts';

/** What a thread needs for frames of any log. */
export interface FrameBench {
  readonly sealing: Omit<SealingContext, 'diskId'>;
  readonly codec: Codec;
  readonly builder: LogFrameBuilder;
}

export function prepareFrames(setup: WorkerSetup, randomBytes: (lengthBytes: number) => Uint8Array): FrameBench {
  const { replicaId, currentEpoch, compression } = setup;
  const epochs = new Map(setup.epochs.map((keys) => [keys.epoch, keys]));
  const sealing = { replicaId, epochs, currentEpoch, randomBytes };
  return { sealing, codec: createCodec(compression), builder: new LogFrameBuilder() };
}

/** Reads the pieces, and seals them into the head of `task.buffer`. */
export function sealFrame(task: SealFrameTask, bench: FrameBench): SealFrameResult {
  const { builder, codec } = bench;
  const { pieces, frame, buffer } = task;
  const into = Buffer.from(buffer);
  builder.begin();
  for (let at = 0; at < pieces.length; at += PIECE_FIELDS) {
    const [disk, offset, lengthBytes] = [pieces[at]!, pieces[at + 1]!, pieces[at + 2]!];
    const [source, sourceOffset] = [pieces[at + 3]!, pieces[at + 4]!];
    if (source === PIECE_SOURCE.zeros) {
      builder.addZeros(disk, offset, lengthBytes);
      continue;
    }
    const room = builder.room(lengthBytes);
    if (source === PIECE_SOURCE.sent) room.set(into.subarray(sourceOffset, sourceOffset + lengthBytes));
    else readLogged(source, room, sourceOffset);
    builder.addData(disk, offset, lengthBytes);
  }
  const { dataBytes } = builder;
  const frameBytes = cipherOf(task, bench).seal(builder.finish(), frame, codec, into);
  return { frameBytes, dataBytes, buffer };
}

/** Opens the frame that stands at the head of `task.buffer`, and puts its plaintext there. @throws REPLICA_LOG */
export function openFrame(task: OpenFrameTask, bench: FrameBench): OpenFrameResult {
  const { frame, frameBytes, buffer } = task;
  const plaintext = cipherOf(task, bench).open(new Uint8Array(buffer, 0, frameBytes), frame);
  new Uint8Array(buffer).set(plaintext);
  return { plaintextBytes: plaintext.byteLength, buffer };
}

function cipherOf({ log }: { readonly log: LogIdentity }, { sealing }: FrameBench): LogFrameCipher {
  return new LogFrameCipher(sealing, log);
}

/** Bytes of a log; one that became shorter since it was verified is never filled up with zeros. */
function readLogged(descriptor: number, into: Uint8Array, fileOffset: number): void {
  const lengthBytes = readUpTo(descriptor, into, fileOffset);
  if (lengthBytes === into.byteLength) return;
  const rule = 'a log does not become shorter while it is read';
  const end = fileOffset + lengthBytes;
  throw new BlockferryError('HRL_TORN', `a change log ends at offset ${end}: broken rule: ${rule}`, {
    facts: { offset: end, neededBytes: into.byteLength, lengthBytes, rule },
  });
}
