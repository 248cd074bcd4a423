/**
 * Health: every reason that is the case, worst first, with its cause in numbers and the operator's next step. Never throws, and
 * is normal exactly where there is no finding.
 */
import type { ItemFacts } from './facts.ts';
import {
  type CycleFigures,
  HEALTH_THRESHOLDS,
  type HealthThresholds,
  type Reason,
  type Seen,
  type Severity,
} from './reason.ts';
import { FAILURE_REASONS, type FailureCode } from './reasons-failures.ts';
import { PACE_REASONS, type PaceCode } from './reasons-pace.ts';
import { RESYNC_REASONS, type ResyncCode } from './reasons-resync.ts';
import { SIDE_REASONS, type SideCode } from './reasons-sides.ts';
import { stateOf } from './state.ts';

export type ReasonCode = FailureCode | ResyncCode | SideCode | PaceCode;

/** Everything that can be wrong, the worst of its kind first. */
const CATALOGUE: Readonly<Record<ReasonCode, Reason>> = {
  ...FAILURE_REASONS,
  ...RESYNC_REASONS,
  ...SIDE_REASONS,
  ...PACE_REASONS,
};

export interface Finding {
  readonly code: ReasonCode;
  readonly severity: Severity;
  /** With its numbers. */
  readonly cause: string;
  /** The operator's next step. */
  readonly action: string;
}

export interface Health {
  readonly level: 'normal' | Severity;
  /** Worst first. */
  readonly findings: readonly Finding[];
}

const REASONS: readonly (readonly [ReasonCode, Reason])[] = Object.entries(CATALOGUE) as [ReasonCode, Reason][];

/** Every code with its severity, worst first: criticals, then warnings, each in the order of the catalogue. */
export const REASON_CODES: readonly { readonly code: ReasonCode; readonly severity: Severity }[] = (
  ['critical', 'warning'] as const
).flatMap((severity) =>
  REASONS.filter(([, reason]) => reason.severity === severity).map(([code]) => ({ code, severity })),
);

export function healthOf(
  facts: ItemFacts,
  figures: CycleFigures = {},
  thresholds: HealthThresholds = HEALTH_THRESHOLDS,
): Health {
  const seen: Seen = { facts, state: stateOf(facts), figures, thresholds };
  const findings: Finding[] = [];
  for (const { code, severity } of REASON_CODES) {
    const reason = CATALOGUE[code];
    const cause = reason.cause(seen);
    if (cause === undefined) continue;
    findings.push({ code, severity, cause, action: reason.next(seen).replaceAll('NAME', facts.item ?? 'NAME') });
  }
  return { level: findings[0]?.severity ?? 'normal', findings };
}

/** Health with findings that somebody else measured. */
export function withFindings({ findings }: Health, more: readonly Finding[]): Health {
  const all = [...findings, ...more];
  const ordered = REASON_CODES.flatMap(({ code }) => all.find((finding) => finding.code === code) ?? []);
  return { level: ordered[0]?.severity ?? 'normal', findings: ordered };
}
