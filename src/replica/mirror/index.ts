/** The door of mirror: carrying a replica from one store to the next. */
export { type MirrorResult, type MirrorSetup, mirror } from './mirror.ts';
