/**
 * Handshake: the fixed newstyle negotiation of one connection, as bytes in and values out.
 *
 * `push` takes what the client sent, `next` handles one message of it; so whoever calls decides when the answers
 * have gone far enough for the next one. It ends with an Agreement, or is to be closed. What the protocol allows to be
 * answered with an error leaves the stream in step; what it doesn't, and what is longer than any client needs, is
 * NBD_PROTOCOL: the connection is dropped.
 *
 * Without TLS: STARTTLS, like every option that is not known, is answered with REPLY_UNSUPPORTED.
 */
import { ByteReader } from '../../bytes.ts';
import { isBlockferryError } from '../../errors.ts';
import { NBD_OPTION_BYTES_MAX, NBD_REQUEST_BYTES_MAX, NBD_STRING_BYTES_MAX } from '../../limits.ts';
import type { BlockDevice } from './block-device.ts';
import { ByteQueue } from './byte-queue.ts';
import { chooseContexts, listContexts, type MetaContext } from './contexts.ts';
import * as nbd from './protocol.ts';
import { violation } from './violation.ts';

/** What client and server agreed on. */
export interface Agreement {
  readonly device: BlockDevice;
  /** READ and BLOCK_STATUS are answered in chunks. */
  readonly isStructured: boolean;
  /** The client asked for the block sizes, and so has to keep to them. */
  readonly isAligned: boolean;
  /** Contexts of BLOCK_STATUS. */
  readonly contexts: readonly MetaContext[];
}

/** What to send for one message, and what comes behind it. */
export interface HandshakeStep {
  readonly answer: Buffer;
  readonly next: 'go on' | 'close' | Agreement;
}

/** An option with its data. */
interface Option {
  readonly code: number;
  readonly data: Buffer;
}

export class Handshake {
  readonly #devices: readonly BlockDevice[];
  readonly #input = new ByteQueue();
  #clientFlags: number | undefined;
  /** Code and length of the option whose data is awaited. */
  #header: { readonly code: number; readonly lengthBytes: number } | undefined;
  #isStructured = false;
  #chosen: { readonly device: BlockDevice; readonly contexts: readonly MetaContext[] } | undefined;

  /** `devices`: at least one; the first is also the export without a name. */
  constructor(devices: readonly BlockDevice[]) {
    this.#devices = devices;
  }

  push(bytes: Buffer): void {
    this.#input.push(bytes);
  }

  /** Handles the next message; undefined while it is not complete. @throws NBD_PROTOCOL */
  next(): HandshakeStep | undefined {
    if (this.#clientFlags === undefined && !this.#takeFlags()) return undefined;
    const option = this.#takeOption();
    return option === undefined ? undefined : this.#answer(option);
  }

  /** What the client sent behind the handshake. */
  rest(): Buffer {
    return this.#input.take(this.#input.lengthBytes)!;
  }

  #takeFlags(): boolean {
    const bytes = this.#input.take(nbd.CLIENT_FLAGS_BYTES);
    if (bytes === undefined) return false;
    const flags = bytes.readUInt32BE(0);
    if (flags > nbd.CLIENT_FLAGS_KNOWN) throw violation(`client flags are ${flags}, of which 1 and 2 are known`);
    this.#clientFlags = flags;
    return true;
  }

  #takeOption(): Option | undefined {
    if (this.#header === undefined) {
      const bytes = this.#input.take(nbd.OPTION_HEADER_BYTES);
      if (bytes === undefined) return undefined;
      const magic = bytes.readBigUInt64BE(0);
      if (magic !== nbd.OPTION_MAGIC) throw violation(`an option begins with ${magic}, not with its magic number`);
      const [code, lengthBytes] = [bytes.readUInt32BE(8), bytes.readUInt32BE(12)];
      if (lengthBytes > NBD_OPTION_BYTES_MAX) {
        throw violation(`option ${code} has ${lengthBytes} bytes of data, above the limit of ${NBD_OPTION_BYTES_MAX}`);
      }
      this.#header = { code, lengthBytes };
    }
    const data = this.#input.take(this.#header.lengthBytes);
    if (data === undefined) return undefined;
    const { code } = this.#header;
    this.#header = undefined;
    return { code, data };
  }

  #answer(option: Option): HandshakeStep {
    if (option.code === nbd.OPTION_EXPORT_NAME) return this.#exportByName(option);
    try {
      return this.#answerFixed(option);
    } catch (error) {
      if (!isBlockferryError(error, 'NBD_PROTOCOL')) throw error;
      return goOn(errorReply(option, nbd.REPLY_INVALID, error.message));
    }
  }

  /** @throws NBD_PROTOCOL for data that is answered with REPLY_INVALID */
  #answerFixed(option: Option): HandshakeStep {
    switch (option.code) {
      case nbd.OPTION_ABORT:
        return { answer: acknowledged(option), next: 'close' };
      case nbd.OPTION_LIST:
        requireNoData(option);
        return goOn(
          ...this.#devices.map(({ name }) => reply(option, nbd.REPLY_SERVER, sized(name))),
          acknowledged(option),
        );
      case nbd.OPTION_INFO:
      case nbd.OPTION_GO:
        return this.#describe(option);
      case nbd.OPTION_STRUCTURED_REPLY:
        requireNoData(option);
        this.#isStructured = true;
        return goOn(acknowledged(option));
      case nbd.OPTION_LIST_META_CONTEXT:
      case nbd.OPTION_SET_META_CONTEXT:
        return this.#contexts(option);
      default:
        return goOn(errorReply(option, nbd.REPLY_UNSUPPORTED, `option ${option.code} is not known here`));
    }
  }

  /** The one option whose failure has no answer. */
  #exportByName({ data }: Option): HandshakeStep {
    if (data.byteLength > NBD_STRING_BYTES_MAX) throw violation(`an export name has ${data.byteLength} bytes`);
    const name = data.toString();
    const device = this.#find(name);
    if (device === undefined) throw violation(`there is no export ${JSON.stringify(name.slice(0, 100))}`);
    const zeros = (this.#clientFlags! & nbd.CLIENT_NO_ZEROES) === 0 ? nbd.RESERVED_ZEROS_BYTES : 0;
    const answer = Buffer.alloc(10 + zeros);
    answer.writeBigUInt64BE(BigInt(device.sizeBytes), 0);
    answer.writeUInt16BE(this.#transmissionFlags(), 8);
    return { answer, next: this.#agree(device, false) };
  }

  #describe(option: Option): HandshakeStep {
    const reader = optionReader(option);
    const name = readString(reader);
    const wanted = new Set<number>();
    for (let left = reader.u16BE(); left > 0; left -= 1) wanted.add(reader.u16BE());
    requireEnd(option, reader);
    const device = this.#find(name);
    if (device === undefined) return goOn(errorReply(option, nbd.REPLY_UNKNOWN_EXPORT, 'there is no such export'));
    // The sizes are told also to those who did not ask: the smallest is none that a client may take for granted.
    const replies = [this.#exportInfo(option, device), blockSizeInfo(option, device)];
    if (wanted.has(nbd.INFO_NAME)) replies.push(nameInfo(option, device));
    const answer = Buffer.concat([...replies, acknowledged(option)]);
    const isAligned = wanted.has(nbd.INFO_BLOCK_SIZE);
    return { answer, next: option.code === nbd.OPTION_GO ? this.#agree(device, isAligned) : 'go on' };
  }

  #contexts(option: Option): HandshakeStep {
    const isChoice = option.code === nbd.OPTION_SET_META_CONTEXT;
    // A choice that fails leaves none behind.
    if (isChoice) this.#chosen = undefined;
    if (!this.#isStructured) throw violation('contexts need structured replies');
    const reader = optionReader(option);
    const name = readString(reader);
    const queries: string[] = [];
    for (let left = reader.u32BE(); left > 0; left -= 1) queries.push(readString(reader));
    requireEnd(option, reader);
    const device = this.#find(name);
    if (device === undefined) return goOn(errorReply(option, nbd.REPLY_UNKNOWN_EXPORT, 'there is no such export'));
    const contexts = isChoice ? chooseContexts(queries) : listContexts(queries);
    if (isChoice) this.#chosen = { device, contexts };
    const replies = contexts.map((context) => contextReply(option, context.name, isChoice ? context.id : 0));
    return goOn(...replies, acknowledged(option));
  }

  #find(name: string): BlockDevice | undefined {
    return name === '' ? this.#devices[0] : this.#devices.find((device) => device.name === name);
  }

  #agree(device: BlockDevice, isAligned: boolean): Agreement {
    const contexts = this.#chosen?.device === device ? this.#chosen.contexts : [];
    return { device, isStructured: this.#isStructured, isAligned, contexts };
  }

  #transmissionFlags(): number {
    return nbd.TRANSMISSION_FLAGS | (this.#isStructured ? nbd.TRANSMISSION_DF : 0);
  }

  #exportInfo(option: Option, { sizeBytes }: BlockDevice): Buffer {
    const info = Buffer.allocUnsafe(12);
    info.writeUInt16BE(nbd.INFO_EXPORT, 0);
    info.writeBigUInt64BE(BigInt(sizeBytes), 2);
    info.writeUInt16BE(this.#transmissionFlags(), 10);
    return reply(option, nbd.REPLY_INFO, info);
  }
}

function blockSizeInfo(option: Option, device: BlockDevice): Buffer {
  const info = Buffer.allocUnsafe(14);
  info.writeUInt16BE(nbd.INFO_BLOCK_SIZE, 0);
  info.writeUInt32BE(device.minimumBlockBytes, 2);
  info.writeUInt32BE(device.preferredBlockBytes, 6);
  info.writeUInt32BE(NBD_REQUEST_BYTES_MAX, 10);
  return reply(option, nbd.REPLY_INFO, info);
}

function nameInfo(option: Option, { name }: BlockDevice): Buffer {
  return reply(option, nbd.REPLY_INFO, Buffer.concat([Buffer.from([0, nbd.INFO_NAME]), Buffer.from(name)]));
}

function contextReply(option: Option, name: string, id: number): Buffer {
  const context = Buffer.allocUnsafe(4);
  context.writeUInt32BE(id, 0);
  return reply(option, nbd.REPLY_META_CONTEXT, Buffer.concat([context, Buffer.from(name)]));
}

/** A string with its length before it. */
function sized(text: string): Buffer {
  const bytes = Buffer.from(text);
  const length = Buffer.allocUnsafe(4);
  length.writeUInt32BE(bytes.byteLength, 0);
  return Buffer.concat([length, bytes]);
}

function reply({ code }: Option, type: number, data: Buffer): Buffer {
  const header = Buffer.allocUnsafe(nbd.OPTION_REPLY_HEADER_BYTES);
  header.writeBigUInt64BE(nbd.OPTION_REPLY_MAGIC, 0);
  header.writeUInt32BE(code, 8);
  header.writeUInt32BE(type, 12);
  header.writeUInt32BE(data.byteLength, 16);
  return Buffer.concat([header, data]);
}

function acknowledged(option: Option): Buffer {
  return reply(option, nbd.REPLY_ACK, Buffer.alloc(0));
}

function errorReply(option: Option, type: number, message: string): Buffer {
  return reply(option, type, Buffer.from(message));
}

function goOn(...replies: readonly Buffer[]): HandshakeStep {
  return { answer: Buffer.concat(replies), next: 'go on' };
}

function optionReader({ code, data }: Option): ByteReader {
  return new ByteReader(data, { source: `option ${code}`, offset: 0, code: 'NBD_PROTOCOL' });
}

function readString(reader: ByteReader): string {
  const lengthBytes = reader.u32BE();
  if (lengthBytes > NBD_STRING_BYTES_MAX) throw violation(`a string has ${lengthBytes} bytes`);
  return Buffer.from(reader.bytes(lengthBytes)).toString();
}

function requireEnd({ code }: Option, reader: ByteReader): void {
  if (reader.remaining > 0) throw violation(`option ${code} has ${reader.remaining} bytes too many`);
}

function requireNoData({ code, data }: Option): void {
  if (data.byteLength > 0) throw violation(`option ${code} has no data, and came with ${data.byteLength} bytes`);
}
