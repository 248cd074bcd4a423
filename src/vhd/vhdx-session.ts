/**
 * VhdxSession: a VHDX while it is open for writing: its headers, its log, its length. Everything in the file besides
 * payload blocks changes through here.
 *
 *   open     new FileWriteGuid · replay into the file · no LogGuid · empty entry · LogGuid
 *   commit   sync · entry with all staged pages · sync · pages in place
 *   close    sync · no LogGuid
 *
 * Each entry is its own tail and stands behind the one before it, which counts until the new one is durable; by then the
 * first sync of the commit has made the pages of the one before durable in place.
 * docs/formats/vhdx.md says what a power cut leaves at each step.
 */
import { alignUp } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { NIL_GUID, randomGuid } from '../guid.ts';
import { VHDX_FILE_BYTES_MAX, VHDX_REPLAY_ZERO_BYTES_MAX } from '../limits.ts';
import type { Ports, Random, RandomAccessFile } from '../ports.ts';
import { StrictFindings } from './findings.ts';
import type { LayerContext } from './layer.ts';
import type { VhdxBytes } from './vhdx-bytes.ts';
import { encodeHeader, type HeaderFields, type LogPlacement } from './vhdx-header.ts';
import { ALLOCATION_BYTES, HEADER_OFFSETS, vhdxFault } from './vhdx-layout.ts';
import { encodeEntry } from './vhdx-log-entry.ts';
import { readStructure, type VhdxStructure } from './vhdx-structure.ts';
import { writeZeros } from './zeros.ts';

/** No session updates its headers this often. */
const HEADER_UPDATES_MAX = 2n ** 32n;
const U64_MAX = 2n ** 64n - 1n;

export class VhdxSession {
  readonly structure: VhdxStructure;
  /** What the reader found odd. */
  readonly notes: readonly string[];
  readonly #headers: HeaderPair;
  readonly #log: LogPlacement;
  readonly #random: Random;
  /** Of the log entry that comes next. */
  #entryOffset = 0;
  #entrySequence = 1n;

  private constructor(structure: VhdxStructure, notes: readonly string[], headers: HeaderPair, random: Random) {
    this.structure = structure;
    this.notes = notes;
    this.#headers = headers;
    this.#log = structure.log;
    this.#random = random;
  }

  /** @throws the codes of openVhdx; VHDX_LOG if the file has no log, or one that is not replayed into a file */
  static async open(
    file: RandomAccessFile,
    context: LayerContext,
    { random }: Pick<Ports, 'random'>,
  ): Promise<VhdxSession> {
    const { structure, notes } = await read(file, context);
    const headers = HeaderPair.of(file, structure);
    if (!structure.log.isActive) {
      await headers.update({ fileWriteGuid: newGuid(random) });
      return await VhdxSession.#start(structure, notes, headers, random);
    }
    await checkReplay(structure.bytes);
    await headers.update({ fileWriteGuid: newGuid(random) });
    await replayIntoFile(structure.bytes);
    await headers.update({ logGuid: NIL_GUID });
    const replayed = await read(file, context);
    const note = 'the log was replayed into the file';
    return await VhdxSession.#start(replayed.structure, [...replayed.notes, note], headers, random);
  }

  static async #start(
    structure: VhdxStructure,
    notes: readonly string[],
    headers: HeaderPair,
    random: Random,
  ): Promise<VhdxSession> {
    const session = new VhdxSession(structure, notes, headers, random);
    const { bytes } = structure;
    const sizeBytes = alignUp(bytes.sizeBytes, ALLOCATION_BYTES);
    if (sizeBytes > bytes.sizeBytes) await session.#setSize(sizeBytes);
    const logGuid = newGuid(random);
    await session.#appendEntry(logGuid);
    await headers.update({ logGuid });
    return session;
  }

  get dataWriteGuid(): string {
    return this.#headers.fields.dataWriteGuid;
  }

  /** Before the first change that the guest can see. */
  async changeDataWriteGuid(next: string = newGuid(this.#random)): Promise<void> {
    await this.#headers.update({ dataWriteGuid: next });
  }

  /** Makes the file longer by `lengthBytes` of zeros, whole MiB; where they begin. */
  async append(lengthBytes: number): Promise<number> {
    const offset = this.structure.bytes.sizeBytes;
    if (offset + lengthBytes > VHDX_FILE_BYTES_MAX) {
      const { path } = this.structure.bytes.file;
      const rule = `a VHDX file has at most ${VHDX_FILE_BYTES_MAX} bytes`;
      throw new BlockferryError('OUTPUT_FAILED', `${path}: no room for another block: ${rule}`, {
        facts: { source: path, offset, rule },
      });
    }
    await this.#setSize(offset + lengthBytes);
    return offset;
  }

  /**
   * Makes durable what was written, then what is staged. The pages in place are not synced: the entry holds them until
   * the next one, and before that comes a sync.
   */
  async commit(): Promise<void> {
    const { file, staged } = this.structure.bytes;
    await file.sync();
    if (staged.count === 0) return;
    await this.#appendEntry(this.#headers.fields.logGuid);
    for (const { offset, bytes } of staged.inOrder()) await file.write(bytes, offset);
    staged.clear();
  }

  /** After the last commit: there is nothing to replay. */
  async finish(): Promise<void> {
    await this.structure.bytes.file.sync();
    await this.#headers.update({ logGuid: NIL_GUID });
  }

  async #appendEntry(logGuid: string): Promise<void> {
    const { file, staged, sizeBytes } = this.structure.bytes;
    const entry = encodeEntry({
      offset: this.#entryOffset,
      sequenceNumber: this.#entrySequence,
      logGuid,
      fileSizeBytes: sizeBytes,
      pages: staged.inOrder(),
    });
    const { offset, lengthBytes } = this.#log;
    const beforeWrap = Math.min(entry.length, lengthBytes - this.#entryOffset);
    await file.write(entry.subarray(0, beforeWrap), offset + this.#entryOffset);
    if (beforeWrap < entry.length) await file.write(entry.subarray(beforeWrap), offset);
    await file.sync();
    this.#entryOffset = (this.#entryOffset + entry.length) % lengthBytes;
    this.#entrySequence += 1n;
  }

  async #setSize(sizeBytes: number): Promise<void> {
    const { bytes } = this.structure;
    await bytes.file.truncate(sizeBytes);
    bytes.grow(sizeBytes);
  }
}

/** The two headers; the older one is written first, so one of them is whole at every instant. */
class HeaderPair {
  readonly #file: RandomAccessFile;
  #fields: HeaderFields;
  #currentOffset: number;

  private constructor(file: RandomAccessFile, fields: HeaderFields, currentOffset: number) {
    this.#file = file;
    this.#fields = fields;
    this.#currentOffset = currentOffset;
  }

  /** Refuses what cannot be written. */
  static of(file: RandomAccessFile, { header, log }: VhdxStructure): HeaderPair {
    if (log.lengthBytes === 0) {
      const rule = 'a VHDX that is written has a log';
      throw vhdxFault('VHDX_LOG', file.path, header.offset + 68, rule, 'log length is 0');
    }
    if (header.sequenceNumber > U64_MAX - HEADER_UPDATES_MAX) {
      const rule = 'the sequence number of a header can be raised';
      throw vhdxFault('VHDX_HEADER', file.path, header.offset + 8, rule, `it is ${header.sequenceNumber}`);
    }
    const { sequenceNumber, fileWriteGuid, dataWriteGuid, logGuid } = header;
    const guids = { fileWriteGuid, dataWriteGuid, logGuid };
    const fields = { sequenceNumber, ...guids, logOffset: log.offset, logLengthBytes: log.lengthBytes };
    return new HeaderPair(file, fields, header.offset);
  }

  get fields(): HeaderFields {
    return this.#fields;
  }

  async update(change: Partial<Pick<HeaderFields, 'fileWriteGuid' | 'dataWriteGuid' | 'logGuid'>>): Promise<void> {
    for (let copy = 0; copy < HEADER_OFFSETS.length; copy += 1) {
      this.#fields = { ...this.#fields, ...change, sequenceNumber: this.#fields.sequenceNumber + 1n };
      this.#currentOffset = HEADER_OFFSETS[this.#currentOffset === HEADER_OFFSETS[0] ? 1 : 0];
      await this.#file.write(encodeHeader(this.#fields), this.#currentOffset);
      await this.#file.sync();
    }
  }
}

async function read(
  file: RandomAccessFile,
  context: LayerContext,
): Promise<{ readonly structure: VhdxStructure; readonly notes: readonly string[] }> {
  const findings = new StrictFindings(file.path);
  // StrictFindings throws at every fault, so the structure is there.
  return { structure: (await readStructure(file, context, findings))!, notes: findings.notes };
}

/** A hostile log can ask for zeros over terabytes. Behind the end of the file they come by themselves. */
async function checkReplay({ file, overlay, sizeBytes }: VhdxBytes): Promise<void> {
  const fileSizeBytes = await file.sizeBytes();
  let zeroBytes = 0;
  for (const piece of overlay?.pieces(0, Math.min(sizeBytes, fileSizeBytes)) ?? []) {
    if (piece.kind === 'zero') zeroBytes += piece.lengthBytes;
  }
  if (zeroBytes <= VHDX_REPLAY_ZERO_BYTES_MAX) return;
  const rule = `replay writes at most ${VHDX_REPLAY_ZERO_BYTES_MAX} bytes of zeros`;
  throw vhdxFault('VHDX_LOG', file.path, 0, rule, `log with ${zeroBytes} bytes of zeros`);
}

async function replayIntoFile({ file, overlay, sizeBytes }: VhdxBytes): Promise<void> {
  const fileSizeBytes = await file.sizeBytes();
  for (const piece of overlay?.pieces(0, sizeBytes) ?? []) {
    const end = Math.min(piece.offset + piece.lengthBytes, fileSizeBytes);
    if (piece.kind === 'memory') await file.write(piece.bytes, piece.offset);
    else if (piece.kind === 'zero') await writeZeros(file, piece.offset, end);
  }
  if (sizeBytes > (await file.sizeBytes())) await file.truncate(sizeBytes);
  await file.sync();
}

function newGuid(random: Random): string {
  return randomGuid(random.bytes(16));
}
