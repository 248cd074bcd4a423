/** The door of the sides: failover, and what it becomes (docs/life.md). */
export { cancel } from './cancel.ts';
export { commit } from './commit.ts';
export { failback } from './failback.ts';
export { failover } from './failover.ts';
export { failoverPlanned } from './planned.ts';
export { loadFailover } from './record.ts';
export { type RetentionFault, retentionFacts, retentionFault } from './retention-folder.ts';
export { reverse } from './reverse.ts';
export { stageDirectories } from './stages.ts';
