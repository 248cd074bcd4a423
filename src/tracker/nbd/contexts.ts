/**
 * Metadata contexts: what BLOCK_STATUS can tell about a range.
 *
 * | context | flags |
 * |---|---|
 * | `base:allocation` | 1 hole, 2 zero |
 * | `x-blockferry:dirty` | 1 the replica may differ here |
 *
 * A query is the name of a context. In a list, a namespace alone (`x-blockferry:`) stands for all its contexts; in a
 * choice it chooses none. Whatever else a query says is of no interest here, and no error.
 */
import type { BlockDevice, StatusExtent } from './block-device.ts';

export interface MetaContext {
  /** In answers to BLOCK_STATUS. */
  readonly id: number;
  readonly name: string;
  readonly extents: (device: BlockDevice, offset: number, lengthBytes: number) => AsyncIterable<StatusExtent>;
}

export const META_CONTEXTS: readonly MetaContext[] = [
  {
    id: 1,
    name: 'base:allocation',
    extents: (device, offset, lengthBytes) => device.allocation(offset, lengthBytes),
  },
  {
    id: 2,
    name: 'x-blockferry:dirty',
    extents: (device, offset, lengthBytes) => device.dirty(offset, lengthBytes),
  },
];

/** The contexts that a client may choose by these queries; all of them if it asks nothing. */
export function listContexts(queries: readonly string[]): readonly MetaContext[] {
  if (queries.length === 0) return META_CONTEXTS;
  const named = new Set(queries);
  return META_CONTEXTS.filter(({ name }) => named.has(name) || named.has(name.slice(0, name.indexOf(':') + 1)));
}

/** The contexts that these queries choose. */
export function chooseContexts(queries: readonly string[]): readonly MetaContext[] {
  const named = new Set(queries);
  return META_CONTEXTS.filter(({ name }) => named.has(name));
}
