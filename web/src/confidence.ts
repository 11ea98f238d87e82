/** How sure the network is, pixel by pixel: the probability of the class that the mask shows. */

import type { Size } from './geometry';
import { placePixels, type Grid, type Region } from './upsample';

/**
 * Return the probability of each pixel's class as a byte, 255 for certain.
 *
 * It is the softmax of the interpolated logits, as `Segmentation.probability` gives it; where the
 * network gives probabilities (`softmaxed`) they are interpolated, no more.
 */
export function confidenceOf(
  mask: Uint8Array,
  logits: Grid,
  size: Size,
  alignCorners: boolean,
  { frame, content }: Region,
  softmaxed: boolean,
): Uint8Array<ArrayBuffer> {
  const { classes, values, height, width } = logits;
  const rows = placePixels(height, size.height, alignCorners, frame.height, content.height);
  const columns = placePixels(width, size.width, alignCorners, frame.width, content.width);
  const out = new Uint8Array(mask.length);
  const row = new Float64Array(width * classes);
  for (let y = 0, i = 0; y < size.height; y++) {
    const top = rows.cell[y]! * width * classes;
    const bottom = Math.min(rows.cell[y]! + 1, height - 1) * width * classes;
    const down = rows.weight[y]!;
    for (let k = 0; k < row.length; k++) {
      row[k] = values[top + k]! + down * (values[bottom + k]! - values[top + k]!);
    }
    for (let x = 0; x < size.width; x++, i++) {
      const left = columns.cell[x]! * classes;
      const right = Math.min(columns.cell[x]! + 1, width - 1) * classes;
      const across = columns.weight[x]!;
      const at = (c: number) => row[left + c]! + across * (row[right + c]! - row[left + c]!);
      const own = at(mask[i]!);
      let probability = own;
      if (!softmaxed) {
        let sum = 0;
        for (let c = 0; c < classes; c++) sum += Math.exp(at(c) - own);
        probability = 1 / sum;
      }
      out[i] = Math.round(255 * Math.min(Math.max(probability, 0), 1));
    }
  }
  return out;
}
