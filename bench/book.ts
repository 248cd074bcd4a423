/** The records of a bench, found by what they are about; of several rounds the best counts. */
import { BENCHES } from './benches.ts';
import type { BenchRecord, RunRecord, StepRecord } from './record.ts';

export class Book {
  readonly records: readonly BenchRecord[];

  constructor(records: readonly BenchRecord[]) {
    this.records = records;
  }

  of<Type extends BenchRecord['type']>(type: Type, bench?: string): readonly Extract<BenchRecord, { type: Type }>[] {
    const isOfType = (record: BenchRecord): record is Extract<BenchRecord, { type: Type }> => record.type === type;
    return this.records.filter(isOfType).filter((record) => bench === undefined || record.bench === bench);
  }

  /** All rounds of a contestant. */
  rounds(bench: string, task: string, contestant: string, x?: number): readonly RunRecord[] {
    return this.of('run', bench).filter(
      (run) => run.task === task && run.contestant === contestant && (x === undefined || run.x === x),
    );
  }

  /** The best of them; undefined if it did not run. */
  best(bench: string, task: string, contestant: string, x?: number): RunRecord | undefined {
    const rank = BENCHES[bench]?.rank ?? (({ wallMs }) => wallMs);
    return [...this.rounds(bench, task, contestant, x)].sort((a, b) => rank(a) - rank(b))[0];
  }

  step(bench: string, step: string): StepRecord | undefined {
    return this.of('step', bench).find((record) => record.step === step);
  }
}

/** Without repetition, in the order in which they come first. */
export function distinct<T>(values: readonly T[]): readonly T[] {
  return [...new Set(values)];
}
