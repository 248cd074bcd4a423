/** The door of the sides: failover, and what it becomes (docs/life.md). */
export { cancel } from './cancel.ts';
export { commit } from './commit.ts';
export { failback } from './failback.ts';
export { failover } from './failover.ts';
export { failoverPlanned } from './planned.ts';
export { loadFailover, stageDirectory } from './record.ts';
export { reverse } from './reverse.ts';
