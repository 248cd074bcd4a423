/**
 * The numbers of the NBD protocol (NetworkBlockDevice/nbd, doc/proto.md). All fields are big-endian.
 *
 *     hello, server    0 u64 "NBDMAGIC"   8 u64 "IHAVEOPT"  16 u16 handshake flags
 *     hello, client    0 u32 client flags
 *     option           0 u64 "IHAVEOPT"   8 u32 option      12 u32 length  16 data
 *     option reply     0 u64 magic        8 u32 option      12 u32 type    16 u32 length  20 data
 *     EXPORT_NAME      0 u64 size         8 u16 transmission flags         10 124 zeros unless NO_ZEROES
 *     request          0 u32 magic        4 u16 flags        6 u16 type     8 u64 cookie  16 u64 offset  24 u32 length
 *     simple reply     0 u32 magic        4 u32 error        8 u64 cookie  16 data of a READ
 *     reply chunk      0 u32 magic        4 u16 flags        6 u16 type     8 u64 cookie  16 u32 length  20 payload
 *
 * Payloads of reply chunks:
 *
 *     OFFSET_DATA      0 u64 offset       8 data
 *     OFFSET_HOLE      0 u64 offset       8 u32 length
 *     BLOCK_STATUS     0 u32 context      4 (u32 length, u32 flags) …
 *     ERROR            0 u32 error        4 u16 length of the message, message
 */

export const HELLO: Uint8Array = Buffer.from('NBDMAGICIHAVEOPT\x00\x03', 'latin1');
export const CLIENT_FLAGS_BYTES = 4;
/** FIXED_NEWSTYLE is bit 0 in the flags of both sides; a client that leaves it out may use it all the same. */
export const CLIENT_FLAGS_KNOWN = 3;
export const CLIENT_NO_ZEROES = 2;

export const OPTION_MAGIC: bigint = 0x49484156454f5054n;
export const OPTION_HEADER_BYTES = 16;
export const OPTION_EXPORT_NAME = 1;
export const OPTION_ABORT = 2;
export const OPTION_LIST = 3;
export const OPTION_INFO = 6;
export const OPTION_GO = 7;
export const OPTION_STRUCTURED_REPLY = 8;
export const OPTION_LIST_META_CONTEXT = 9;
export const OPTION_SET_META_CONTEXT = 10;

export const OPTION_REPLY_MAGIC: bigint = 0x0003e889045565a9n;
export const OPTION_REPLY_HEADER_BYTES = 20;
export const REPLY_ACK = 1;
export const REPLY_SERVER = 2;
export const REPLY_INFO = 3;
export const REPLY_META_CONTEXT = 4;
export const REPLY_UNSUPPORTED = 0x8000_0001;
export const REPLY_INVALID = 0x8000_0003;
export const REPLY_UNKNOWN_EXPORT = 0x8000_0006;

export const INFO_EXPORT = 0;
export const INFO_NAME = 1;
export const INFO_BLOCK_SIZE = 3;

/** HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, CAN_MULTI_CONN, SEND_FAST_ZERO. */
export const TRANSMISSION_FLAGS = 0b1001_0110_1101;
/** SEND_DF, offered once structured replies are agreed on. */
export const TRANSMISSION_DF = 0b1000_0000;
/** Zeros behind the answer to EXPORT_NAME. */
export const RESERVED_ZEROS_BYTES = 124;

export const REQUEST_MAGIC = 0x25609513;
export const REQUEST_BYTES = 28;
export const READ = 0;
export const WRITE = 1;
export const DISCONNECT = 2;
export const FLUSH = 3;
export const TRIM = 4;
export const WRITE_ZEROES = 6;
export const BLOCK_STATUS = 7;

export const FLAG_FUA = 1;
export const FLAG_NO_HOLE = 2;
export const FLAG_DF = 4;
export const FLAG_REQ_ONE = 8;
export const FLAG_FAST_ZERO = 16;

export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const SIMPLE_REPLY_BYTES = 16;
export const CHUNK_MAGIC = 0x668e33ef;
export const CHUNK_HEADER_BYTES = 20;
export const CHUNK_DONE = 1;
export const CHUNK_OFFSET_DATA = 1;
export const CHUNK_OFFSET_HOLE = 2;
export const CHUNK_BLOCK_STATUS = 5;
export const CHUNK_ERROR = 0x8001;

/** Errors of requests. Numbers of the protocol, whatever the operating system calls them. */
export const NBD_EPERM = 1;
export const NBD_EIO = 5;
export const NBD_EINVAL = 22;
export const NBD_ENOSPC = 28;
export const NBD_EOVERFLOW = 75;
export const NBD_ENOTSUP = 95;
export const NBD_ESHUTDOWN = 108;
