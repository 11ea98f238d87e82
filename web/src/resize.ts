/**
 * Bilinear resizing with a support that grows with the reduction, so that every pixel counts.
 *
 * The result is Pillow's to the last bit, because the resize filter changes masks more than
 * anything else: two passes, weights in fixed point, rounded to bytes in between.
 * Source: src/libImaging/Resample.c of Pillow.
 */

import type { Size } from './geometry';

const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

/**
 * Return an RGB picture of `to`'s size, 3 bytes a pixel, inside a frame that is `padding` elsewhere.
 *
 * `rgba` are the rows of the picture from the top, 4 bytes a pixel; alpha is not looked at.
 */
export function resizeIntoFrame(
  rgba: Uint8ClampedArray | Uint8Array,
  from: Size,
  to: Size,
  frame: Size,
  padding: readonly number[],
): Uint8Array {
  const narrow = resizeRows(rgba, from, to.width);
  const out = new Uint8Array(frame.height * frame.width * 3);
  for (let i = 0; i < out.length; i += 3) {
    out[i] = padding[0]!;
    out[i + 1] = padding[1]!;
    out[i + 2] = padding[2]!;
  }
  resizeColumns(narrow, from.height, to, out, frame.width);
  return out;
}

interface Weights {
  /** The first source pixel of every output pixel, and how many there are. */
  first: Int32Array;
  count: Int32Array;
  /** `most` weights for every output pixel, in units of 2^-22. */
  weight: Int32Array;
  most: number;
}

function weights(from: number, to: number): Weights {
  const scale = from / to;
  const support = Math.max(scale, 1);
  const most = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(to);
  const count = new Int32Array(to);
  const weight = new Int32Array(to * most);
  const real = new Float64Array(most);
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    let sum = 0;
    for (let k = 0; k < end - start; k++) {
      const distance = Math.abs((k + start - centre + 0.5) * (1 / support));
      real[k] = distance < 1 ? 1 - distance : 0;
      sum += real[k]!;
    }
    for (let k = 0; k < end - start; k++) {
      weight[i * most + k] = Math.trunc(0.5 + (real[k]! / sum) * (1 << PRECISION_BITS));
    }
    first[i] = start;
    count[i] = end - start;
  }
  return { first, count, weight, most };
}

/** Make every row `width` pixels wide; 4 bytes a pixel in, 3 out. */
function resizeRows(rgba: Uint8ClampedArray | Uint8Array, from: Size, width: number): Uint8Array {
  const out = new Uint8Array(from.height * width * 3);
  if (width === from.width) {
    for (let i = 0, o = 0; o < out.length; i += 4, o += 3) {
      out[o] = rgba[i]!;
      out[o + 1] = rgba[i + 1]!;
      out[o + 2] = rgba[i + 2]!;
    }
    return out;
  }
  const { first, count, weight, most } = weights(from.width, width);
  let o = 0;
  for (let y = 0; y < from.height; y++) {
    const row = y * from.width * 4;
    for (let x = 0; x < width; x++) {
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      let i = row + first[x]! * 4;
      const end = x * most + count[x]!;
      for (let k = x * most; k < end; k++, i += 4) {
        const share = weight[k]!;
        red += rgba[i]! * share;
        green += rgba[i + 1]! * share;
        blue += rgba[i + 2]! * share;
      }
      out[o++] = red >> PRECISION_BITS;
      out[o++] = green >> PRECISION_BITS;
      out[o++] = blue >> PRECISION_BITS;
    }
  }
  return out;
}

/** Bring the rows of an RGB picture to `to.height` rows, in the top left corner of `out`. */
function resizeColumns(
  rgb: Uint8Array,
  height: number,
  to: Size,
  out: Uint8Array,
  outWidth: number,
): void {
  const bytes = to.width * 3;
  if (height === to.height) {
    for (let y = 0; y < height; y++) {
      out.set(rgb.subarray(y * bytes, (y + 1) * bytes), y * outWidth * 3);
    }
    return;
  }
  const { first, count, weight, most } = weights(height, to.height);
  const sum = new Int32Array(bytes);
  for (let y = 0; y < to.height; y++) {
    sum.fill(HALF);
    for (let k = 0; k < count[y]!; k++) {
      const share = weight[y * most + k]!;
      const row = (first[y]! + k) * bytes;
      for (let b = 0; b < bytes; b++) sum[b]! += rgb[row + b]! * share;
    }
    const to0 = y * outWidth * 3;
    for (let b = 0; b < bytes; b++) out[to0 + b] = sum[b]! >> PRECISION_BITS;
  }
}
