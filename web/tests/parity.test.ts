/**
 * Equality with the Python package, on what `tests/web/parity_cases.py` has written for us.
 *
 * `python -m pytest tests/web` runs these; alone they are skipped.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { placeInFrame, type Fit } from '../src/geometry';
import { enlarge } from '../src/label_map';
import type { LabelSet } from '../src/labels';
import { inputTables } from '../src/network';
import { resizeIntoFrame } from '../src/resize';
import { TfliteFile } from '../src/tflite';
import { understand } from '../src/understand';
import { argmaxBilinear } from '../src/upsample';

type Pair = [height: number, width: number];

interface Cases {
  geometry: { photo: Pair; frame: Pair; fit: Fit; content: Pair }[];
  resize: { photo: Pair; frame: Pair; rgba: string; placed: string; padding: number[] }[];
  masks: {
    grid: [number, number, number];
    logits: string;
    mask: string;
    size: Pair;
    alignCorners: boolean;
    frame: Pair;
    content: Pair;
  }[];
  labelMaps: { map: Pair; ids: string; photo: Pair; frame: Pair; content: Pair; mask: string }[];
  models: {
    file: string;
    error: string | null;
    expected?: Record<string, unknown>;
    labels?: LabelSet | null;
    tables?: number[][];
  }[];
  labelSets: LabelSet[];
}

const folder = process.env.DEEPLAB_FIXTURES;
const size = ([height, width]: Pair) => ({ height, width });
const bytes = (name: string) => new Uint8Array(readFileSync(join(folder!, name)));
const cases: Cases = folder
  ? JSON.parse(readFileSync(join(folder, 'cases.json'), 'utf8'))
  : { geometry: [], resize: [], masks: [], labelMaps: [], models: [], labelSets: [] };

describe.skipIf(!folder)('equal to Python', () => {
  it('where a photo lies in the frame', () => {
    expect(cases.geometry.length).toBeGreaterThan(100);
    for (const { photo, frame, fit, content } of cases.geometry) {
      expect(placeInFrame(size(photo), size(frame), fit), `${photo}`).toEqual(size(content));
    }
  });

  it.each(cases.resize)('the resized photo: $photo in $frame', (item) => {
    const [photo, frame] = [size(item.photo), size(item.frame)];
    const content = placeInFrame(photo, frame, 'letterbox');
    const placed = resizeIntoFrame(bytes(item.rgba), photo, content, frame, item.padding);
    expect(Buffer.from(placed).equals(Buffer.from(bytes(item.placed)))).toBe(true);
  });

  it.each(cases.masks)('the mask: $grid to $size, align_corners $alignCorners', (item) => {
    const [height, width, classes] = item.grid;
    const values = new Float32Array(bytes(item.logits).buffer);
    const mask = argmaxBilinear(
      { height, width, classes, values },
      size(item.size),
      item.alignCorners,
      { frame: size(item.frame), content: size(item.content) },
    );
    expect(Buffer.from(mask).equals(Buffer.from(bytes(item.mask)))).toBe(true);
  });

  it.each(cases.labelMaps)('the enlarged label map: $map to $photo', (item) => {
    const ids = bytes(item.ids);
    const mask = enlarge(
      ids,
      size(item.map),
      size(item.photo),
      size(item.frame),
      size(item.content),
    );
    expect(Buffer.from(mask).equals(Buffer.from(bytes(item.mask)))).toBe(true);
  });

  it.each(cases.models)('what is understood of $file', async (item) => {
    const open = async () =>
      understand(new TfliteFile(item.file, bytes(item.file)), {}, cases.labelSets);
    if (item.error) {
      await expect(open()).rejects.toThrow(new RegExp(item.error));
      return;
    }
    const network = await open();
    expect({
      height: network.height,
      width: network.width,
      mean: network.mean,
      std: network.std,
      fit: network.fit,
      fetched: network.output === 'logits' ? network.fetched.index : null,
      output: network.output,
      alignCorners: network.alignCorners,
      numClasses: network.numClasses,
    }).toEqual(item.expected);
    expect(network.labels).toEqual(item.labels);
    expect(inputTables(network).map((table) => [...table])).toEqual(item.tables);
  });
});
