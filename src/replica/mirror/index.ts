/** The door of mirror: carrying a replica from one store to the next. */
export { type MirrorProgress, type MirrorResult, type MirrorSetup, mirror } from './mirror.ts';
export { keptPoints, type MirrorPlan, mirroredRoot, planMirror } from './plan.ts';
