/**
 * Masks of classes that overlap: each is where its logit reaches that of its threshold.
 *
 * The logits are interpolated in 32 bits, in the order of `photo/upsample.py`, so that the masks
 * equal those of `photo/overlapping.py` pixel for pixel.
 */

import type { Size } from './geometry';
import { placePixels, type Grid, type Region } from './upsample';

/** Where no class is, in `topmost`. */
export const NONE = 255;

/** Of every pixel the classes that are there, a bit for each. */
export interface Bits {
  /** Pixels of one plane; plane p holds the classes from 8p on. */
  pixels: number;
  planes: Uint8Array<ArrayBuffer>;
}

/** Whether a class is at a pixel. */
export function hasClass({ planes, pixels }: Bits, id: number, at: number): boolean {
  return ((planes[(id >> 3) * pixels + at]! >> (id & 7)) & 1) === 1;
}

export interface Masks {
  bits: Bits;
  /** Of the classes at a pixel the one furthest above its threshold; NONE where there is none. */
  topmost: Uint8Array<ArrayBuffer>;
  /** Pixels per class id; they do not add up to all. */
  counts: Uint32Array;
}

/** Return the masks of all classes at the photo's size. */
export function findMasks(
  logits: Grid,
  size: Size,
  alignCorners: boolean,
  { frame, content }: Region,
  thresholds: number[],
): Masks {
  const { classes, values, height, width } = logits;
  if (!values.every(Number.isFinite)) {
    throw new Error('The network answered with numbers that are not finite; it is broken.');
  }
  const round = Math.fround;
  const least = thresholds.map((share) => round(Math.log(share / (1 - share))));
  const rows = placePixels(height, size.height, alignCorners, frame.height, content.height);
  const columns = placePixels(width, size.width, alignCorners, frame.width, content.width);
  const across = Float32Array.from(columns.weight);
  const pixels = size.height * size.width;
  const planes = new Uint8Array(Math.ceil(classes / 8) * pixels);
  const topmost = new Uint8Array(pixels).fill(NONE);
  const counts = new Uint32Array(256);
  const band = new Float32Array(width * classes);
  for (let y = 0, at = 0; y < size.height; y++) {
    const top = rows.cell[y]! * width * classes;
    const bottom = Math.min(rows.cell[y]! + 1, height - 1) * width * classes;
    const down = round(rows.weight[y]!);
    for (let i = 0; i < band.length; i++) {
      const above = values[top + i]!;
      band[i] = above + round(down * round(values[bottom + i]! - above));
    }
    for (let x = 0; x < size.width; x++, at++) {
      const left = columns.cell[x]! * classes;
      const right = Math.min(columns.cell[x]! + 1, width - 1) * classes;
      let highest = -Infinity;
      for (let c = 0; c < classes; c++) {
        const from = band[left + c]!;
        const logit = round(round(round(band[right + c]! - from) * across[x]!) + from);
        if (logit < least[c]!) continue;
        planes[(c >> 3) * pixels + at]! |= 1 << (c & 7);
        counts[c]!++;
        const margin = round(logit - least[c]!);
        if (margin > highest) {
          highest = margin;
          topmost[at] = c;
        }
      }
    }
  }
  return { bits: { pixels, planes }, topmost, counts };
}

/** One class as a mask: its id where it is, NONE elsewhere. */
export function planeOf(bits: Bits, id: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: bits.pixels }, (_, at) => (hasClass(bits, id, at) ? id : NONE));
}

/** The topmost of the classes that are shown; the first of them where that is not shown. */
export function topmostOf(
  bits: Bits,
  topmost: Uint8Array,
  shown: readonly number[],
): Uint8Array<ArrayBuffer> {
  const isShown = new Set(shown);
  return Uint8Array.from(topmost, (id, at) => {
    if (id === NONE || isShown.has(id)) return id;
    return shown.find((one) => hasClass(bits, one, at)) ?? NONE;
  });
}
