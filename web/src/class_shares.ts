/** The probabilities of all classes on a coarse grid: what soft edges are told by the network. */

import type { Size } from './geometry';
import { placePixels, type Grid, type Region } from './upsample';

/** Probabilities of `classes` at every point, classes running fastest. */
export interface ClassShares extends Size {
  classes: number;
  values: Float32Array<ArrayBuffer>;
}

/** Return the probabilities at `size`, as `photo/confidence.py` samples them. */
export function classShares(
  logits: Grid,
  size: Size,
  alignCorners: boolean,
  { frame, content }: Region,
  softmaxed: boolean,
): ClassShares {
  const { classes, values, height, width } = logits;
  const rows = placePixels(height, size.height, alignCorners, frame.height, content.height);
  const columns = placePixels(width, size.width, alignCorners, frame.width, content.width);
  const out = new Float32Array(size.height * size.width * classes);
  let at = 0;
  for (let y = 0; y < size.height; y++) {
    const top = rows.cell[y]! * width;
    const bottom = Math.min(rows.cell[y]! + 1, height - 1) * width;
    const down = rows.weight[y]!;
    for (let x = 0; x < size.width; x++, at += classes) {
      const left = columns.cell[x]!;
      const right = Math.min(left + 1, width - 1);
      const across = columns.weight[x]!;
      for (let c = 0; c < classes; c++) {
        const [a, b] = [values[(top + left) * classes + c]!, values[(top + right) * classes + c]!];
        const [d, e] = [
          values[(bottom + left) * classes + c]!,
          values[(bottom + right) * classes + c]!,
        ];
        const upper = a + across * (b - a);
        out[at + c] = upper + down * (d + across * (e - d) - upper);
      }
      if (!softmaxed) softmax(out, at, at + classes);
    }
  }
  return { ...size, classes, values: out };
}

/** Return how probable some classes are together, point by point. */
export function sumShares({ classes, values }: ClassShares, kept: (id: number) => boolean) {
  const ids = Array.from({ length: classes }, (_, id) => id).filter(kept);
  return Float32Array.from({ length: values.length / classes }, (_, point) =>
    Math.min(
      1,
      ids.reduce((sum, id) => sum + values[point * classes + id]!, 0),
    ),
  );
}

function softmax(values: Float32Array, start: number, end: number): void {
  let most = -Infinity;
  for (let i = start; i < end; i++) most = Math.max(most, values[i]!);
  let sum = 0;
  for (let i = start; i < end; i++) sum += values[i] = Math.exp(values[i]! - most);
  for (let i = start; i < end; i++) values[i]! /= sum;
}
