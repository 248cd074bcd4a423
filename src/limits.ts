/**
 * Every cap on untrusted input and every bound on memory, with its reason. A length that comes from bytes is compared
 * with its cap here before anything is allocated or looped over.
 */
import { GIB, KIB, MIB, TIB } from './bytes.ts';

// Disks
/** [MS-VHDX] 2.2.2: a VHDX is at most 64 TiB; nothing larger is read. */
export const DISK_BYTES_MAX: number = 64 * TIB;
/** VHD specification and qemu: 0xff000000 sectors. */
export const VHD_BYTES_MAX: number = 0xff000000 * 512;
/** A chain longer than this is a mistake or an attack (openvmm takes 256; Hyper-V advises far less). */
export const CHAIN_DEPTH_MAX = 256;
/** VHD block sizes seen are 512 KiB to 2 MiB; the field is a u32. */
export const VHD_BLOCK_BYTES_MAX: number = 256 * MIB;
/** 2040 GiB in 128 KiB blocks, the smallest blocks that a disk of this size may have. The table is read whole once. */
export const VHD_BAT_BYTES_MAX: number = 64 * MIB;
/** Faults that one check reports; a hostile table can break a rule millions of times. */
export const FAULTS_MAX = 1000;
/** A path in a VHD parent locator; Windows paths end at 32,767 UTF-16 units. */
export const VHD_LOCATOR_BYTES_MAX: number = 64 * KIB;
/** A VHDX file: 64 TiB of blocks, their tables, and as much again of space that was given up. Offsets stay exact. */
export const VHDX_FILE_BYTES_MAX: number = 128 * TIB;
/** [MS-VHDX]: the log length is a u32 of MiB granularity; openvmm caps it at 1 GiB. */
export const VHDX_LOG_BYTES_MAX: number = 1 * GIB;
/** 64 TiB in 1 MiB blocks needs 513 MiB of block table (with the bitmap entries). */
export const VHDX_BAT_BYTES_MAX: number = 1 * GIB;
/** openvmm: at most 128 MiB of metadata region, of which one item holds at most 1 MiB. */
export const VHDX_METADATA_REGION_BYTES_MAX: number = 128 * MIB;
export const VHDX_METADATA_ITEM_BYTES_MAX: number = 1 * MIB;
/** [MS-VHDX] 2.2.3.2 and 2.6.1.1: entries of a region table and of a metadata table. */
export const VHDX_TABLE_ENTRIES_MAX = 2047;
/** openvmm: pairs in a parent locator. */
export const VHDX_LOCATOR_PAIRS_MAX = 256;
/** Bytes that replay of a dirty VHDX log may hold in memory; a log that changes more is refused. */
export const VHDX_REPLAY_BYTES_MAX: number = 64 * MIB;
/** Zeros that replay of such a log into the file may write: a few of the largest blocks. */
export const VHDX_REPLAY_ZERO_BYTES_MAX: number = 4 * GIB;
/** Table entries and bitmaps that a VHD being written has changed in memory; more of them are flushed. */
export const WRITE_PENDING_BYTES_MAX: number = 4 * MIB;
/** Pages of a block table kept in memory, over all disks of a chain. */
export const BAT_CACHE_BYTES_MAX: number = 16 * MIB;

// Change logs
/** [MS-HRL]: one metadata block is 4096 bytes by default; no log with larger ones than this is known. */
export const HRL_METADATA_BYTES_MAX: number = 64 * KIB;
/** The scan of an unclosed log gives up where no block follows for this long: 127 writes of 4 MiB fit. */
export const HRL_SCAN_GAP_BYTES_MAX: number = 512 * MIB;
/** Positions of blocks kept while a log is walked. A longer log keeps every second, every fourth … */
export const HRL_MARKS_MAX = 65_536;
/** Pieces of a disk kept while logs are coalesced (32 bytes each); more than these are done in several passes. */
export const HRL_PIECES_MAX = 1_048_576;
/** One write that goes into a log, and the data at which a block is written though it has free slots. */
export const HRL_WRITE_BYTES_MAX: number = 64 * MIB;

// Chunks
export const CHUNK_BYTES_MIN: number = 64 * KIB;
export const CHUNK_BYTES_MAX: number = 4 * MIB;
export const CHUNK_BYTES_DEFAULT: number = 256 * KIB;

// Shipped logs
/** Guest bytes in a frame: enough for compression to see what repeats, few enough to hold many frames. */
export const LOG_FRAME_DATA_BYTES_MAX: number = 1 * MIB;
/** Writes of 512 bytes fill a frame with half of these; the rest is for zeros. */
export const LOG_FRAME_RECORDS_MAX = 4096;

// Store
/** Azure: one Put Page carries at most 4 MiB. */
export const PAGE_WRITE_BYTES_MAX: number = 4 * MIB;
/** Azure: a page blob holds at most 8 TiB. */
export const PAGE_BLOB_BYTES_MAX: number = 8 * TIB;
/** A part of a staged object: as much as one page write carries, so that buffers and timeouts fit both. */
export const STAGED_PART_BYTES_MAX: number = 4 * MIB;
/** Azure: a block blob has at most 50,000 blocks. */
export const STAGED_PARTS_MAX = 50_000;
/** The JavaScript SDK carries sequence numbers as doubles. */
export const FENCE_MAX: number = Number.MAX_SAFE_INTEGER;
/** Azure: a blob name has at most 1,024 characters; half is left to the prefix of the URL. */
export const STORE_KEY_CHARACTERS_MAX = 512;

// Replica
/** replica.json and keyring.json are small; anything larger is not ours. */
export const REPLICA_JSON_BYTES_MAX: number = 1 * MIB;
/** A root names every recovery point and its table pages. */
export const ROOT_BYTES_MAX: number = 16 * MIB;
export const DISKS_PER_ITEM_MAX = 64;
export const RECOVERY_POINTS_MAX = 4096;
/** Each point may stand on one of its own, and the newest may have none yet. */
export const BASELINES_MAX: number = RECOVERY_POINTS_MAX + 1;
/** 150 bytes of root each; at one every 30 seconds, five days without an apply. */
export const SHIPPED_LOGS_MAX = 16_384;
/** A pin names the snapshots of all disks of a point. */
export const PIN_BYTES_MAX: number = 1 * MIB;
/** Pins that one look reads. With more of them nothing is deleted; what is none of ours is removed, so the next look sees more. */
export const PINS_LISTED_MAX = 1024;
/** stage.json names the table pages of one disk. */
export const STAGE_JSON_BYTES_MAX: number = 1 * MIB;
export const KEY_SLOTS_MAX = 64;
/** Stores of one machine, its first one among them. */
export const STORES_MAX = 8;
/** scrypt N = 2^17, r = 8 needs 128 MiB; a keyring may not ask for more than this. */
export const SCRYPT_MEMORY_BYTES_MAX: number = 160 * MIB;
/** A key file, passphrase file or PEM. */
export const KEY_FILE_BYTES_MAX: number = 64 * KIB;

// Tracking
/** Logs of one disk that wait for the replica; at a rotation every 30 s, more than a month without a store. */
export const TRACKED_LOGS_MAX = 100_000;
/** One line of the control channel. */
export const CONTROL_LINE_BYTES_MAX: number = 4 * MIB;
/** Linux: `sun_path` has 108 bytes; macOS 104. */
export const SOCKET_PATH_BYTES_MAX = 100;

// Agent
/** Machines of one agent. Each costs a timer, and threads while it works. */
export const MACHINES_MAX = 256;
/** A configuration of so many machines takes a tenth of it. */
export const CONFIG_BYTES_MAX: number = 1 * MIB;
/** Mistakes of a configuration that are told. */
export const CONFIG_FAULTS_MAX = 100;
/** What one machine remembers. */
export const AGENT_STATE_BYTES_MAX: number = 1 * MIB;
/** One request to the agent. */
export const AGENT_LINE_BYTES_MAX: number = 64 * KIB;
/** Clients of its control socket at a time. */
export const AGENT_CLIENTS_MAX = 64;
/** Events that a reader has not taken; one that falls further behind is cut off. */
export const AGENT_UNREAD_BYTES_MAX: number = 1 * MIB;

// Gateway
/** One request or answer: a root, or a range of an object as long as anybody reads at a time. */
export const GATEWAY_BODY_BYTES_MAX: number = 32 * MIB;
/** Bodies that all requests of a gateway hold at a time; the others wait. */
export const GATEWAY_HELD_BYTES_MAX: number = 128 * MIB;
/** An error as an answer. */
export const GATEWAY_FAILURE_BYTES_MAX: number = 64 * KIB;
/** A page of a listing, of 4096 of the longest keys. */
export const GATEWAY_LIST_BYTES_MAX: number = 4 * MIB;
export const GATEWAY_LIST_ITEMS_MAX = 4096;
/** Connections of one client, and of all of them. */
export const GATEWAY_SOCKETS_MAX = 64;
export const GATEWAY_CONNECTIONS_MAX = 1024;
/** A request that is not there whole by then is cut off: 4 MiB at 35 KiB a second. */
export const GATEWAY_REQUEST_MS_MAX = 120_000;
/** Replicas that a gateway has open; those that hold nothing and are not in use make room. */
export const GATEWAY_REPLICAS_MAX = 1024;
/** Large objects in the making. */
export const GATEWAY_STAGINGS_MAX = 256;
/** Clients, and stores, that a configuration names. */
export const GATEWAY_CLIENTS_MAX = 256;
export const GATEWAY_STORES_MAX = 64;

// NBD server
/** Clients at a time; each may open several connections. */
export const NBD_CONNECTIONS_MAX = 64;
/** Data of one option: an export name and hundreds of context queries. */
export const NBD_OPTION_BYTES_MAX: number = 64 * KIB;
/** NBD protocol: strings have at most 4,096 bytes. */
export const NBD_STRING_BYTES_MAX = 4096;
/** Bytes of one READ or WRITE. NBD protocol: clients may count on 32 MiB. */
export const NBD_REQUEST_BYTES_MAX: number = 32 * MIB;
/** Bytes that requests and unread answers of one connection hold; from there on nothing more is read from it. */
export const NBD_CONNECTION_BYTES_MAX: number = 32 * MIB;
/** The same over all connections. The request that crosses a bound is still served: at most NBD_REQUEST_BYTES_MAX more. */
export const NBD_SERVER_BYTES_MAX: number = 96 * MIB;
/** What a request counts for itself, so that requests without data are bounded too. */
export const NBD_REQUEST_HELD_BYTES: number = 1 * KIB;
/** Extents in one answer to BLOCK_STATUS, per context; the client asks again for what follows. */
export const NBD_STATUS_EXTENTS_MAX = 4096;
/** A client that has not agreed on an export by then is cut off. */
export const NBD_HANDSHAKE_MS_MAX = 10_000;
/** When a connection had to wait so long for memory, the one that holds most of it while its client dawdles is cut off. */
export const NBD_STARVING_MS_MAX = 30_000;
/** At the end of a connection its client has so long to read its last answers. */
export const NBD_LINGER_MS_MAX = 5_000;

/** Items that share a moment: as many as the reference system allows. */
export const GROUP_ITEMS_MAX = 16;

/** What stands before the body of an HTTP answer. */
export const HTTP_HEAD_BYTES_MAX: number = 16 * KIB;
