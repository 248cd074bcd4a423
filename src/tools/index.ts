/** What one does with a single disk: convert it, digest it, map it. Library functions over VirtualDisk. */
export { type ByteSink, type ConvertReport, convertDisk, streamDisk } from './convert.ts';
export { type ChunkDigest, type DigestOptions, type DiskDigest, digestDisk } from './digest.ts';
export { type MapEntry, mapDisk } from './map.ts';
export type { ToolOptions, ToolProgress } from './read-disk.ts';
