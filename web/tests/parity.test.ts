/**
 * Equality with the Python package, on what `tests/web/parity_cases.py` has written for us.
 *
 * `python -m pytest tests/web` runs these; alone they are skipped.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { confidenceOf } from '../src/confidence';
import { softCutout } from '../src/edges';
import { placeInFrame, type Fit } from '../src/geometry';
import { enlarge } from '../src/label_map';
import type { LabelSet } from '../src/labels';
import { inputTables } from '../src/network';
import { findMasks, hasClass, planeOf, topmostOf, NONE } from '../src/overlapping';
import { displayColours, toLab } from '../src/palette';
import { resizeIntoFrame } from '../src/resize';
import { Smoother } from '../src/smooth';
import { TfliteFile } from '../src/tflite';
import { masksTiff } from '../src/tiff';
import { understand } from '../src/understand';
import { argmax, argmaxBilinear } from '../src/upsample';

type Pair = [height: number, width: number];

interface Cases {
  geometry: { photo: Pair; frame: Pair; fit: Fit; content: Pair }[];
  resize: { photo: Pair; frame: Pair; rgba: string; placed: string; padding: number[] }[];
  masks: {
    grid: [number, number, number];
    logits: string;
    mask: string;
    confidence: string;
    size: Pair;
    alignCorners: boolean;
    frame: Pair;
    content: Pair;
  }[];
  overlapping: {
    grid: [number, number, number];
    logits: string;
    thresholds: number[];
    masks: string;
    topmost: string;
    size: Pair;
    alignCorners: boolean;
    frame: Pair;
    content: Pair;
  }[];
  displayColours: { labels: LabelSet; colours: LabelSet['colours'] }[];
  edges: {
    size: Pair;
    rgba: string;
    inside: string;
    probability: string | null;
    result: string;
  }[];
  steady: {
    grid: [number, number, number];
    size: Pair;
    logits: string;
    frame: string;
    steady: string;
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
  : {
      geometry: [],
      resize: [],
      masks: [],
      overlapping: [],
      displayColours: [],
      edges: [],
      steady: [],
      labelMaps: [],
      models: [],
      labelSets: [],
    };

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
    const grid = { height, width, classes, values };
    const region = { frame: size(item.frame), content: size(item.content) };
    const mask = argmaxBilinear(grid, size(item.size), item.alignCorners, region);
    expect(Buffer.from(mask).equals(Buffer.from(bytes(item.mask)))).toBe(true);
    const expected = new Float32Array(bytes(item.confidence).buffer);
    const { alignCorners } = item;
    const sure = confidenceOf(mask, grid, size(item.size), alignCorners, region, false);
    const worst = expected.reduce((most, p, i) => Math.max(most, Math.abs(255 * p - sure[i]!)), 0);
    expect(worst).toBeLessThan(0.51); // rounded to a byte
  });

  it.each(cases.overlapping)('the masks of classes that overlap: $grid to $size', async (item) => {
    const [height, width, classes] = item.grid;
    const grid = { height, width, classes, values: new Float32Array(bytes(item.logits).buffer) };
    const region = { frame: size(item.frame), content: size(item.content) };
    const photo = size(item.size);
    const found = findMasks(grid, photo, item.alignCorners, region, item.thresholds);
    expect(Buffer.from(found.topmost).equals(Buffer.from(bytes(item.topmost)))).toBe(true);
    const expected = bytes(item.masks);
    const pixels = photo.height * photo.width;
    for (let id = 0; id < classes; id++) {
      const plane = expected.subarray(id * pixels, (id + 1) * pixels);
      const got = planeOf(found.bits, id).map((value) => Number(value === id));
      expect(Buffer.from(got).equals(Buffer.from(plane)), `class ${id}`).toBe(true);
      expect(found.counts[id]).toBe(plane.reduce((sum, value) => sum + value, 0));
    }
    const shown = [0, 2]; // what is drawn where the others are switched off
    topmostOf(found.bits, found.topmost, shown).forEach((id, at) => {
      const there = shown.filter((one) => hasClass(found.bits, one, at));
      expect(there.length ? there.includes(id) : id === NONE).toBe(true);
    });
    const file = await masksTiff(found.bits, photo, classes);
    writeFileSync(join(folder!, `${item.masks}.tif`), new Uint8Array(await file.arrayBuffer()));
  });

  it('the colours in which classes are shown', () => {
    expect(cases.displayColours.length).toBeGreaterThan(2);
    for (const { labels, colours } of cases.displayColours) {
      expect(displayColours(labels)).toEqual(colours);
    }
  });

  it.each(cases.edges)('the soft edge of a photo of $size', (item) => {
    const probability = item.probability
      ? new Float32Array(bytes(item.probability).buffer)
      : undefined;
    const rgba = new Uint8ClampedArray(bytes(item.rgba));
    const got = softCutout(rgba, bytes(item.inside), size(item.size), probability);
    const expected = bytes(item.result);
    let [soft, off] = [0, 0];
    for (let i = 3; i < got.length; i += 4) {
      if (expected[i]! > 0 && expected[i]! < 255) soft++;
      // Colours are seen as far as alpha lets them be.
      const seen = expected[i]! / 255;
      const differs = (k: number) => Math.abs(got[i - k]! - expected[i - k]!) * (k ? seen : 1) > 1;
      if ([0, 1, 2, 3].some(differs)) off++;
    }
    expect(soft).toBeGreaterThan(20);
    expect(off).toBeLessThanOrEqual(0.01 * soft);
  });

  it('steady masks of moving pictures', () => {
    const smoother = new Smoother();
    const floats = (name: string) => new Float32Array(bytes(name).buffer);
    for (const item of cases.steady) {
      const [height, width, classes] = item.grid;
      const grid = { height, width, classes, values: floats(item.logits) };
      const steady = smoother.smooth(grid, bytes(item.frame), size(item.size));
      floats(item.steady).forEach((value, i) => expect(steady.values[i]).toBeCloseTo(value, 4));
      expect(argmax(steady)).toEqual(argmax({ ...grid, values: floats(item.steady) }));
    }
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
      channelsFirst: network.channelsFirst,
      oneChannel: network.oneChannel,
      softmaxed: network.softmaxed,
      thresholds: network.thresholds,
    }).toEqual(item.expected);
    if (network.labels) expect(item.labels).toMatchObject({ ...network.labels });
    else expect(item.labels).toBeNull();
    expect(inputTables(network).map((table) => [...table])).toEqual(item.tables);
  });

  it.each(cases.labelSets)('colours that are seen: $names.1 and others', (labels) => {
    const colours = displayColours(labels);
    const labs = colours.map(toLab);
    labs.forEach(([lightness, a, b], id) => {
      if (id === labels.background) return;
      expect(lightness, labels.names[id]).toBeGreaterThan(0.48); // not nearly black, not white
      expect(lightness, labels.names[id]).toBeLessThan(0.9);
      expect(Math.hypot(a, b), labels.names[id]).toBeGreaterThan(0.08); // not grey as a street
      if (labs.length > 40) return;
      for (let other = 0; other < id; other++) {
        const [l, c, d] = labs[other]!;
        const distance = Math.hypot(lightness - l, a - c, b - d);
        if (other !== labels.background) {
          expect(distance, `${labels.names[id]}, ${labels.names[other]}`).toBeGreaterThan(0.06);
        }
      }
    });
  });
});
