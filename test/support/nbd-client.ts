/** An NBD client for tests: it says what it is told to, right or wrong, and shows every byte that comes back. Without code of src. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export const OPT = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structured: 8,
  listMeta: 9,
  setMeta: 10,
} as const;
export const REP = {
  ack: 1,
  server: 2,
  info: 3,
  meta: 4,
  unsup: 2 ** 31 + 1,
  invalid: 2 ** 31 + 3,
  unknown: 2 ** 31 + 6,
} as const;
export const CMD = { read: 0, write: 1, disc: 2, flush: 3, trim: 4, cache: 5, zeroes: 6, status: 7 } as const;
export const FLAG = { fua: 1, noHole: 2, df: 4, reqOne: 8, fastZero: 16 } as const;

export function u16(value: number): Buffer {
  return Buffer.from([value >> 8, value & 255]);
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

export function text(value: string): Buffer {
  return Buffer.concat([u32(Buffer.byteLength(value)), Buffer.from(value)]);
}

export function optionBytes(code: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  return Buffer.concat([Buffer.from('IHAVEOPT'), u32(code), u32(data.byteLength), data]);
}

/** Data of INFO and GO. */
export function exportQuery(name: string, ...infos: readonly number[]): Buffer {
  return Buffer.concat([text(name), u16(infos.length), ...infos.map(u16)]);
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function contextQuery(name: string, ...queries: readonly string[]): Buffer {
  return Buffer.concat([text(name), u32(queries.length), ...queries.map(text)]);
}

export interface RequestFields {
  readonly type: number;
  readonly flags?: number;
  readonly cookie?: number | bigint;
  readonly offset?: number | bigint;
  readonly length?: number;
  /** Sent behind the header; its length is the request's, unless that is given. */
  readonly data?: Uint8Array;
}

export function requestBytes(fields: RequestFields): Buffer {
  const { type, flags = 0, cookie = 0, offset = 0, data = Buffer.alloc(0), length = data.byteLength } = fields;
  return Buffer.concat([u32(0x25609513), u16(flags), u16(type), u64(cookie), u64(offset), u32(length), data]);
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

/** A simple reply, or one chunk of a structured one. */
export interface Reply {
  readonly cookie: bigint;
  /** Of a simple reply, or an error chunk; 0 for other chunks. */
  readonly error: number;
  /** Of a chunk; undefined for a simple reply. */
  readonly chunk: number | undefined;
  readonly isLast: boolean;
  /** Payload of a chunk, or data of a simple reply. */
  readonly data: Buffer;
}

export type Address = { readonly path: string } | { readonly host: string; readonly port: number };

export class NbdClient {
  readonly socket: Socket;
  #input: Buffer[] = [];
  #inputBytes = 0;
  #hasEnded = false;
  #wake: () => void = () => {};

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (piece: Buffer) => {
      this.#input.push(piece);
      this.#inputBytes += piece.byteLength;
      this.#wake();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#hasEnded = true;
      this.#wake();
    });
    socket.on('end', () => {
      this.#hasEnded = true;
      this.#wake();
    });
  }

  /** Connected, nothing read or said. */
  static async dial(address: Address): Promise<NbdClient> {
    const socket = connect('path' in address ? { path: address.path } : { ...address, noDelay: true });
    const client = new NbdClient(socket);
    await once(socket, 'connect');
    return client;
  }

  /** Hello and client flags are exchanged. */
  static async greet(address: Address, flags = 3): Promise<NbdClient> {
    const client = await NbdClient.dial(address);
    await client.read(18);
    client.send(u32(flags));
    return client;
  }

  /** In transmission. */
  static async open(
    address: Address,
    { name = '', structured = false, contexts = [] as readonly string[] } = {},
  ): Promise<NbdClient> {
    const client = await NbdClient.greet(address);
    if (structured) await client.option(OPT.structured);
    if (contexts.length > 0) await client.option(OPT.setMeta, contextQuery(name, ...contexts));
    const replies = await client.option(OPT.go, exportQuery(name));
    if (replies.at(-1)?.type !== REP.ack) throw new Error(`no export: ${replies.at(-1)?.data.toString()}`);
    return client;
  }

  send(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  /** Exactly so many bytes. Fails when the server has ended before. */
  async read(lengthBytes: number): Promise<Buffer> {
    while (this.#inputBytes < lengthBytes) {
      if (this.#hasEnded) throw new Error(`the server ended after ${this.#inputBytes} of ${lengthBytes} bytes`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    // Joined only where the first piece has too little: many small reads of much input do not copy it again and again.
    const first = this.#input[0] ?? Buffer.alloc(0);
    const all = first.byteLength >= lengthBytes ? first : Buffer.concat(this.#input);
    if (all === first) this.#input[0] = all.subarray(lengthBytes);
    else this.#input = [all.subarray(lengthBytes)];
    this.#inputBytes -= lengthBytes;
    return all.subarray(0, lengthBytes);
  }

  /** Everything until the server ends. */
  async readToEnd(): Promise<Buffer> {
    while (!this.#hasEnded) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return await this.read(this.#inputBytes);
  }

  async optionReply(): Promise<OptionReply> {
    const header = await this.read(20);
    if (header.readBigUInt64BE(0) !== 0x3e889045565a9n) throw new Error('no option reply');
    const data = await this.read(header.readUInt32BE(16));
    return { option: header.readUInt32BE(8), type: header.readUInt32BE(12), data };
  }

  /** Sends an option; all its replies. */
  async option(code: number, data?: Uint8Array): Promise<readonly OptionReply[]> {
    this.send(optionBytes(code, data));
    const replies: OptionReply[] = [];
    do replies.push(await this.optionReply());
    while (replies.at(-1)!.type !== REP.ack && replies.at(-1)!.type < 2 ** 31);
    return replies;
  }

  /** The next reply. `readBytes`: what follows a simple reply that says yes. */
  async reply(readBytes = 0): Promise<Reply> {
    const magic = (await this.read(4)).readUInt32BE(0);
    if (magic === 0x67446698) {
      const header = await this.read(12);
      const error = header.readUInt32BE(0);
      const data = await this.read(error === 0 ? readBytes : 0);
      return { cookie: header.readBigUInt64BE(4), error, chunk: undefined, isLast: true, data };
    }
    if (magic !== 0x668e33ef) throw new Error(`no reply begins with ${magic.toString(16)}`);
    const header = await this.read(16);
    const data = await this.read(header.readUInt32BE(12));
    const chunk = header.readUInt16BE(2);
    const error = chunk >= 0x8000 ? data.readUInt32BE(0) : 0;
    return { cookie: header.readBigUInt64BE(4), error, chunk, isLast: header.readUInt16BE(0) === 1, data };
  }

  /** One request and its reply, which is the next; all chunks of it. */
  async ask(fields: RequestFields): Promise<readonly Reply[]> {
    this.send(requestBytes(fields));
    const replies: Reply[] = [];
    do replies.push(await this.reply(fields.type === CMD.read ? (fields.length ?? 0) : 0));
    while (!replies.at(-1)!.isLast);
    return replies;
  }

  /** The error of one request. */
  async errorOf(fields: RequestFields): Promise<number> {
    return (await this.ask(fields)).at(-1)!.error;
  }

  /** Says good-bye and waits for the end. */
  async disconnect(): Promise<void> {
    this.send(requestBytes({ type: CMD.disc }));
    await this.readToEnd();
    this.socket.destroy();
  }

  /** Goes away without a word. */
  async destroy(): Promise<void> {
    if (this.socket.closed) return;
    this.socket.destroy();
    await once(this.socket, 'close');
  }
}
