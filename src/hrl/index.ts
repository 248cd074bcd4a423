/** The door of the change logs: read, write, chain, coalesce and play logs in the published [MS-HRL] format. */
export { type ChainMember, offlineEdit, orderChain } from './chain.ts';
export { ChangeLog, type OpenLogOptions, type WalkOptions } from './change-log.ts';
export { type CoalesceOptions, coalesceLogs, type LogRange } from './coalesce.ts';
export { type CompactOptions, compactLogs } from './compact.ts';
export { fromLogTime, type LogHeader, toLogTime } from './log-header.ts';
export { type CloseLogOptions, type CreateLogOptions, type LogWrite, LogWriter } from './log-writer.ts';
export { isZeroEntry, type LogBlock, type LogEntry } from './metadata-block.ts';
export { type ReplayOptions, type ReplayReport, type ReplayTarget, replayLogs } from './replay.ts';
export { type SealedLog, type SealLogOptions, sealLog } from './seal-log.ts';
export { type LogCheck, type LoggedDisk, type VerifyLogOptions, verifyLog } from './verify-log.ts';
