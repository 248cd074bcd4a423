/** The door of the stage: a disk is brought to a recovery point by what differs, and is never left between two states. */
export {
  completeStage,
  type LayCounts,
  type LaySetup,
  layStage,
  type ProofCounts,
  type ProofSetup,
  proveDisk,
} from './lay.ts';
export {
  catchUp,
  type DeltaSetup,
  type StageCounts,
  type StageProgressCounts,
  type StageSetup,
  stageDelta,
} from './stage-delta.ts';
export type { FillCounts } from './stage-fill.ts';
export {
  discardStage,
  hasStage,
  isHalfLaid,
  type OpenStageOptions,
  openStage,
  Stage,
  type StagePlace,
  stagePlaceFault,
} from './stage-folder.ts';
export type { StagePhase } from './stage-state.ts';
