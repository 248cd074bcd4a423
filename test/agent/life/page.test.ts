/** docs/health.md says what the code does: states, transitions, reasons, thresholds. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  LIFE_STATES,
  type LifeStateName,
  OCCURRENCES,
  publishedOf,
  REASON_CODES,
  type Trigger,
  targetOf,
  VERBS,
} from '../../../src/agent/life/index.ts';

const PAGE = readFileSync(join(import.meta.dirname, '../../../docs/health.md'), 'utf8');
const STATES = Object.keys(LIFE_STATES) as LifeStateName[];
const TRIGGERS = [...VERBS, ...Object.keys(OCCURRENCES)] as Trigger[];

/** Cells of the rows of tables whose first cell looks so. */
function rows(first: RegExp): readonly (readonly string[])[] {
  return PAGE.split('\n')
    .filter((line) => line.startsWith('|') && first.test(line.split('|')[1]!))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

describe('the page of states and health', () => {
  it('has every state with the number and name that are published', () => {
    const told = rows(/^ `[a-z-]+` $/).map(([state, published]) => [state, published]);
    const are = STATES.map((state) => {
      const { code, name } = publishedOf(state) ?? {};
      return [`\`${state}\``, code === undefined ? '' : `${code} ${name}`];
    });
    expect(told.sort()).toEqual(are.sort());
  });

  it('has every transition with its trigger', () => {
    const isVerb = (trigger: string): boolean => (VERBS as readonly string[]).includes(trigger);
    const shown = (trigger: Trigger): string => (isVerb(trigger) ? `\`${trigger}\`` : `*${trigger}*`);
    const are = STATES.filter((state) => state !== 'unknown').map((state) => {
      const leading = TRIGGERS.filter((trigger) => ![undefined, state].includes(targetOf(state, trigger) as never));
      const staying = TRIGGERS.filter((trigger) => targetOf(state, trigger) === state);
      const leads = leading.map((trigger) => `${shown(trigger)} → ${targetOf(state, trigger)}`).join(', ');
      return [state, leads, staying.map(shown).join(', ')];
    });
    expect(rows(/^ [a-z-]+ $/).filter(([state]) => STATES.includes(state as LifeStateName))).toEqual(are);
  });

  it('says what each occurrence is', () => {
    expect(rows(/^ \*[a-z-]+\* $/)).toEqual(Object.entries(OCCURRENCES).map(([name, what]) => [`*${name}*`, what]));
  });

  it('has every reason with its severity, a cause and an action, worst first', () => {
    const told = rows(/^ `[A-Z_]+` $/);
    expect(told.map(([code, severity]) => [code, severity])).toEqual(
      REASON_CODES.map(({ code, severity }) => [`\`${code}\``, severity]),
    );
    for (const [code, , cause, action] of told) {
      expect(cause!.length, code).toBeGreaterThan(10);
      expect(action, code).toMatch(/`|[a-z]{4}|^as [A-Z_]+$/);
    }
  });
});
