import { describe, expect, it } from 'vitest';
import { NIL_GUID } from '../../src/guid.ts';
import { type ChainMember, offlineEdit, orderChain } from '../../src/hrl/index.ts';

const id = (n: number): string => `00000000-0000-0000-0000-${String(n).padStart(12, '0')}`;
const log = (uniqueId: number, previous: number, isClosed = true): ChainMember => ({
  path: `${uniqueId}.hrl`,
  header: { uniqueId: id(uniqueId), previousUniqueId: previous === 0 ? NIL_GUID : id(previous) },
  isClosed,
});
const order = (logs: readonly ChainMember[], after?: string): string[] =>
  orderChain(logs, after).map(({ path }) => path);

describe('logs of one chain', () => {
  it('come in the order in which they were written, however they are named', () => {
    expect(order([log(3, 2), log(1, 0), log(4, 3, false), log(2, 1)])).toEqual(['1.hrl', '2.hrl', '3.hrl', '4.hrl']);
    expect(order([log(3, 2), log(2, 1)])).toEqual(['2.hrl', '3.hrl']);
    expect(order([log(3, 2), log(2, 1)], id(1))).toEqual(['2.hrl', '3.hrl']);
    expect(order([log(1, 0)])).toEqual(['1.hrl']);
    expect(order([])).toEqual([]);
  });

  it.each<[what: string, logs: readonly ChainMember[], after: string | undefined, path: string, code?: string]>([
    ['one is missing between two', [log(1, 0), log(3, 2)], undefined, '3.hrl'],
    ['one is missing at the start', [log(3, 2)], id(1), '3.hrl'],
    ['one is of another disk', [log(1, 0), log(2, 1), log(9, 0)], undefined, '9.hrl'],
    ['one was played already', [log(1, 0), log(2, 1)], id(1), '1.hrl'],
    ['one is older than what was played', [log(1, 0), log(2, 1)], id(2), '2.hrl'],
    ['one is there twice', [log(1, 0), { ...log(1, 0), path: 'copy.hrl' }], undefined, 'copy.hrl'],
    ['two follow the same', [log(1, 0), log(2, 1), log(3, 1)], undefined, '3.hrl'],
    ['they follow one another in a circle', [log(1, 2), log(2, 1)], undefined, '1.hrl'],
    ['some follow one another in a circle', [log(1, 0), log(3, 2), log(2, 3)], undefined, '3.hrl'],
    ['one follows itself', [log(1, 0), log(5, 5)], undefined, '5.hrl'],
    ['one that another follows was not closed', [log(1, 0, false), log(2, 1)], undefined, '1.hrl', 'HRL_TORN'],
  ])('are refused if %s', (_, logs, after, path, code = 'HRL_CHAIN') => {
    expect(() => orderChain(logs, after)).toThrow(
      expect.objectContaining({ code, facts: expect.objectContaining({ source: path, offset: expect.any(Number) }) }),
    );
  });
});

describe('an offline edit', () => {
  it('shows in the DataWriteGuid, where disk and log have one', () => {
    expect(offlineEdit({ dataWriteGuid: id(1) }, id(1))).toBe('none');
    expect(offlineEdit({ dataWriteGuid: id(1) }, id(2))).toBe('edited');
    expect(offlineEdit({ dataWriteGuid: NIL_GUID }, id(1))).toBe('unknown');
    expect(offlineEdit({ dataWriteGuid: undefined }, id(1))).toBe('unknown');
    expect(offlineEdit({ dataWriteGuid: id(1) }, '')).toBe('unknown');
  });
});
