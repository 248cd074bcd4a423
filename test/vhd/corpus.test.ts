/** Real images read to the hash that independent correct readers give, or are refused as listed. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import { openDisk } from '../../src/vhd/index.ts';
import { corpusImages, sha256OfDisk, unpackImage } from '../support/corpus.ts';

const found = corpusImages();
const images = typeof found === 'string' ? [] : found;
if (typeof found === 'string') console.warn(`skipped: ${found}`);

describe.skipIf(typeof found === 'string')('images that others made', () => {
  test('are there', () => {
    expect(images.length).toBeGreaterThan(0);
  });

  test.for(images)('$file ($what): $expect', async (image) => {
    const directory = await mkdtemp(join(tmpdir(), 'blockferry-corpus-'));
    try {
      const path = await unpackImage(images, image, directory);
      const opening = openDisk(path, { ports: nodePorts() });
      if (image.expect === 'refuse') {
        await expect(opening).rejects.toMatchObject({ code: 'VHD_FOOTER' });
        return;
      }
      const disk = await opening;
      try {
        expect(disk.info.virtualSizeBytes).toBe(image.rawBytes);
        expect(await sha256OfDisk(disk)).toBe(image.rawSha256);
      } finally {
        await disk.close();
      }
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
