/** Where machines remember: `<home>/agent/NAME.json`, replaced in one durable step. */
import { join } from 'node:path';
import { AGENT_STATE_BYTES_MAX } from '../../limits.ts';
import type { FileSystem } from '../../ports.ts';
import { decodeRecord, encodeRecord } from './machine-record.ts';
import type { AgentStateStore } from './types.ts';

/** Directory of the agent in a home. */
export function agentDirectory(home: string): string {
  return join(home, 'agent');
}

export function fileStateStore(directory: string, zone: string, files: FileSystem): AgentStateStore {
  const pathOf = (name: string): string => join(directory, `${name}.json`);
  return {
    async load(name) {
      const bytes = await files.readSmall(pathOf(name), AGENT_STATE_BYTES_MAX);
      return bytes && decodeRecord(bytes, pathOf(name), zone);
    },
    save: (name, record) => files.replace(pathOf(name), encodeRecord(record), { ownerOnly: true }),
  };
}
