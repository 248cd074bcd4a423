/** The door of a machine's life: what is known of it, its state, its health, and what may be asked of it. All pure. */
export {
  type ErrorFacts,
  type ItemFacts,
  type OwnerFacts,
  type ReplicaFacts,
  type TrackingFacts,
  VERBS,
  type Verb,
  type WaitingFacts,
} from './facts.ts';
export { type Finding, type Health, healthOf, REASON_CODES, type ReasonCode, withFindings } from './health.ts';
export { type CycleFigures, HEALTH_THRESHOLDS, type HealthThresholds, type Severity } from './reason.ts';
export { reasonOfError } from './reasons-failures.ts';
export { refusal, sentenceOf } from './refusals.ts';
export { isRecoverable, type Remedy, remedyOf } from './remedies.ts';
export { LIFE_STATES, type LifeState, type LifeStateName, type Published, publishedOf, stateOf } from './state.ts';
export { OCCURRENCES, type Occurrence, type Trigger, type TriggerOf, targetOf, transition } from './transitions.ts';
