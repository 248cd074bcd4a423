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
