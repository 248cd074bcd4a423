/** What a guest reads of a disk, as one hash: taken in this process, since a program for each of hundreds takes minutes. */
import { nodePorts } from '../../src/host/index.ts';
import { digestDisk } from '../../src/tools/index.ts';
import { openDisk } from '../../src/vhd/index.ts';

/** SHA-256 of all that the guest sees. */
export async function contentSha256(path: string): Promise<string> {
  const disk = await openDisk(path, { ports: nodePorts() });
  try {
    for await (const record of digestDisk(disk, { chunkBytes: 4 << 20 })) {
      if (record.type === 'digest') return record.sha256;
    }
    throw new Error(`${path} has no digest`);
  } finally {
    await disk.close();
  }
}
