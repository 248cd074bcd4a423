import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import { checkVhdx, openVhdx } from '../../src/vhd/vhdx-layer.ts';
import { corpusImages, unpackImage } from '../support/corpus.ts';
import { layerContext, sha256OfLayers } from '../support/layer-content.ts';

const scratch = mkdtempSync(join(tmpdir(), 'vhdx-corpus-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const images = corpusImages();
/** The larger ones are hashed through openDisk, by corpus.test.ts. */
const HASHED_BYTES_MAX = 1024 ** 3;
const readable = typeof images === 'string' ? [] : images.filter(({ file }) => file.endsWith('.vhdx.gz'));

describe.skipIf(typeof images === 'string')('VHDX images that others made', () => {
  it.each(readable)('reads $file ($what) to its known content, and finds no fault', async (image) => {
    const { files } = nodePorts();
    const path = await unpackImage(readable, image, scratch);
    const paths = image.parent === undefined ? [path] : [path, join(scratch, basename(image.parent, '.gz'))];
    const opened = await Promise.all(paths.map((name) => files.open(name, 'read')));
    try {
      const context = layerContext(files);
      const layers = [];
      for (const file of opened) layers.push(await openVhdx(file, context));
      expect(layers[0]!.virtualSizeBytes).toBe(image.rawBytes);
      if (layers[1]) expect(layers[0]!.parent?.linkIds).toContain(layers[1].linkId);
      expect((await checkVhdx(opened[0]!, context)).faults).toEqual([]);
      if (image.rawBytes <= HASHED_BYTES_MAX) expect(await sha256OfLayers(layers)).toBe(image.rawSha256);
    } finally {
      for (const file of opened) await file.close();
      for (const name of paths) rmSync(name);
    }
  });
});
