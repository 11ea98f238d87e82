/**
 * Soft edges of what is cut out: its alpha, and its own colours where the ground shines through.
 *
 * Step by step what `photo/edges.py` does, where it is explained: alpha is a linear function of the
 * photo's colour in every window of a small photo, fitted in three rounds, and applied to every
 * pixel near the mask's border.
 */

import type { Size } from './geometry';

const ROWS = 72;
const RADIUS = 2;
const CORE = 2;
const BAND = 3;
const SMOOTH = 3e-4;
const FAR = 1e-9;
const ROUNDS = 3;
const STEEPER = 2;
const PRIOR = 0.5;
const SURE = 0.1;

type Plane = Float64Array;

/** Planes of a small photo: `height` rows of `width` cells. */
interface Small extends Size {
  /** Pixels per cell along a side. */
  step: number;
}

/** The grid on which alpha is refined for a photo of this size. */
export function workingSize({ height, width }: Size): Small {
  const step = Math.max(1, Math.floor((2 * Math.min(height, width) + ROWS) / (2 * ROWS)));
  return { height: Math.ceil(height / step), width: Math.ceil(width / step), step };
}

/**
 * Return what is inside, with a soft edge and without the colours of its ground: RGBA, row by row.
 *
 * `rgba` is the photo, `inside` is not 0 on what is kept, and `probability`, of `workingSize`, says
 * how sure the network is that what lies there is kept; without it the mask's word is taken.
 */
export function softCutout(
  rgba: Uint8ClampedArray,
  inside: Uint8Array,
  size: Size,
  probability?: Float32Array,
): Uint8ClampedArray<ArrayBuffer> {
  const result = new Uint8ClampedArray(rgba);
  for (let i = 0; i < inside.length; i++) result[4 * i + 3] = inside[i] ? 255 : 0;
  const small = workingSize(size);
  const { unsure, values } = fit(result, size, small, probability);
  for (let row = 0, cell = 0; row < small.height; row++) {
    for (let column = 0; column < small.width; column++, cell++) {
      if (unsure[cell]) apply(result, size, small, row, column, values);
    }
  }
  return result;
}

// --- on the small photo --------------------------------------------------------------------------

/** Fit the linear functions, and estimate the colours on both sides. */
function fit(
  pixels: Uint8ClampedArray,
  size: Size,
  small: Small,
  probability?: Float32Array,
): { unsure: Uint8Array; values: Plane[] } {
  const cells = small.height * small.width;
  const [red, green, blue, mask] = [0, 1, 2, 3].map((c) => reduce(pixels, size, small, c)) as [
    Plane,
    Plane,
    Plane,
    Plane,
  ];
  const colours = [red, green, blue];
  const average = (plane: Plane, radius = RADIUS) => mean(plane, small, radius);
  const share = average(mask, BAND);
  const nearThin = average(thin(mask, small));
  const near = new Float64Array(cells);
  const prior = new Float64Array(cells);
  const alpha = new Float64Array(mask);
  for (let i = 0; i < cells; i++) {
    near[i] = Math.min(1, 4 * Math.min(share[i]!, 1 - share[i]!));
    near[i]! *= 1 - Math.min(1, 3 * nearThin[i]!);
    const sure = 2 * share[i]! - 1;
    prior[i] = 0.5 - 0.5 * STEEPER + (sure > 0 === mask[i]! > 0.5 ? PRIOR * sure ** 3 : 0);
    if (probability && near[i]! > FAR) alpha[i] = probability[i]!;
  }
  const means = colours.map((plane) => average(plane));
  const inverse = inverseCovariance(colours, means, average);
  const raw = new Float64Array(cells);
  let linear: Plane[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const together = colours.map((plane) => average(times(plane, alpha)));
    const kept = average(alpha);
    const slopes = [0, 1, 2].map(() => new Float64Array(cells));
    const rest = new Float64Array(cells);
    for (let i = 0; i < cells; i++) {
      rest[i] = kept[i]!;
      for (let c = 0; c < 3; c++) {
        let slope = 0;
        for (let d = 0; d < 3; d++) {
          slope += inverse[c]![d]![i]! * (together[d]![i]! - means[d]![i]! * kept[i]!);
        }
        slopes[c]![i] = slope;
        rest[i]! -= slope * means[c]![i]!;
      }
    }
    linear = [...slopes, rest].map((plane) => average(plane));
    for (let i = 0; i < cells; i++) {
      for (const plane of linear) plane[i]! *= STEEPER;
      linear[3]![i]! += prior[i]!;
      raw[i] = linear[3]![i]!;
      for (let c = 0; c < 3; c++) raw[i]! += linear[c]![i]! * colours[c]![i]!;
      alpha[i] = near[i]! > FAR ? Math.min(1, Math.max(0, raw[i]!)) : mask[i]!;
    }
  }
  const kept = average(alpha);
  const own = colours.map((plane) => average(times(plane, alpha)));
  const ground = means.map((plane) => new Float64Array(plane));
  for (let i = 0; i < cells; i++) {
    for (let c = 0; c < 3; c++) {
      ground[c]![i] = (ground[c]![i]! - own[c]![i]!) / Math.max(1 - kept[i]!, 1e-3);
      own[c]![i]! /= Math.max(kept[i]!, 1e-3);
    }
  }
  return {
    unsure: findUnsure(raw, alpha, mask, near, small),
    values: [...linear, ...own, ...ground, near],
  };
}

/** Which cells of the band are not, with all neighbours, surely inside or surely outside. */
function findUnsure(raw: Plane, alpha: Plane, mask: Plane, near: Plane, small: Small): Uint8Array {
  const { height, width } = small;
  const unsure = new Uint8Array(raw.length);
  for (let row = 0, i = 0; row < height; row++) {
    for (let column = 0; column < width; column++, i++) {
      if (!(near[i]! > FAR)) continue;
      let [least, most] = [Infinity, -Infinity];
      for (let y = Math.max(0, row - 1); y <= Math.min(height - 1, row + 1); y++) {
        for (let x = Math.max(0, column - 1); x <= Math.min(width - 1, column + 1); x++) {
          least = Math.min(least, raw[y * width + x]!);
          most = Math.max(most, raw[y * width + x]!);
        }
      }
      const sure = least >= 1 + SURE || most <= -SURE;
      if (!sure || Math.abs(alpha[i]! - mask[i]!) > 0.5) unsure[i] = 1;
    }
  }
  return unsure;
}

/** The mean of a channel in every cell, 0..1, rounded to bytes as Pillow does. */
function reduce(pixels: Uint8ClampedArray, size: Size, small: Small, channel: number): Plane {
  const result = new Float64Array(small.height * small.width);
  const { step } = small;
  for (let row = 0, i = 0; row < small.height; row++) {
    const [top, bottom] = [row * step, Math.min((row + 1) * step, size.height)];
    for (let column = 0; column < small.width; column++, i++) {
      const [left, right] = [column * step, Math.min((column + 1) * step, size.width)];
      let sum = 0;
      for (let y = top; y < bottom; y++) {
        for (let x = left; x < right; x++) sum += pixels[4 * (y * size.width + x) + channel]!;
      }
      const area = (bottom - top) * (right - left);
      const share = Math.floor(2 ** 24 / area);
      result[i] = Math.floor(((sum + (area >> 1)) * share) / 2 ** 24) / 255;
    }
  }
  return result;
}

/** 1 in cells of what is thinner than a window (legs, tails), whose mask is kept. */
function thin(mask: Plane, small: Small): Plane {
  const full = mean(mask, small, CORE).map((value) => (value > 1 - FAR ? 1 : 0));
  const wide = mean(full, small, CORE + 1);
  return mask.map((value, i) => (value > 0.5 && !(wide[i]! > FAR) ? 1 : 0));
}

/** The inverse of the colours' covariance in every window, row by row. */
function inverseCovariance(
  colours: Plane[],
  means: Plane[],
  average: (plane: Plane) => Plane,
): Plane[][] {
  const covariance = (c: number, d: number) => {
    const plane = average(times(colours[c]!, colours[d]!));
    for (let i = 0; i < plane.length; i++) {
      plane[i]! -= means[c]![i]! * means[d]![i]!;
      if (c === d) plane[i]! += SMOOTH;
    }
    return plane;
  };
  const [rr, rg, rb] = [covariance(0, 0), covariance(0, 1), covariance(0, 2)];
  const [gg, gb, bb] = [covariance(1, 1), covariance(1, 2), covariance(2, 2)];
  for (let i = 0; i < rr.length; i++) {
    const [a, b, c, d, e, f] = [rr[i]!, rg[i]!, rb[i]!, gg[i]!, gb[i]!, bb[i]!];
    const [one, two, three] = [d * f - e * e, c * e - b * f, b * e - d * c];
    const scale = 1 / (a * one + b * two + c * three);
    rr[i] = one * scale;
    rg[i] = two * scale;
    rb[i] = three * scale;
    gg[i] = (a * f - c * c) * scale;
    gb[i] = (b * c - a * e) * scale;
    bb[i] = (a * d - b * b) * scale;
  }
  return [
    [rr, rg, rb],
    [rg, gg, gb],
    [rb, gb, bb],
  ];
}

function times(one: Plane, other: Plane): Plane {
  return one.map((value, i) => value * other[i]!);
}

/** The mean over squares of 2 * radius + 1; fewer at the border. */
function mean(plane: Plane, { height, width }: Size, radius: number): Plane {
  const rows = meanOfLines(plane, width, height, 1, width, radius);
  return meanOfLines(rows, height, width, width, 1, radius);
}

function meanOfLines(
  plane: Plane,
  lines: number,
  length: number,
  lineStep: number,
  step: number,
  radius: number,
): Plane {
  const result = new Float64Array(plane.length);
  const total = new Float64Array(length + 1);
  for (let n = 0; n < lines; n++) {
    const start = n * lineStep;
    for (let i = 0; i < length; i++) total[i + 1] = total[i]! + plane[start + i * step]!;
    for (let i = 0; i < length; i++) {
      const first = Math.max(i - radius, 0);
      const end = Math.min(i + radius + 1, length);
      result[start + i * step] = (total[end]! - total[first]!) / (end - first);
    }
  }
  return result;
}

// --- on the photo --------------------------------------------------------------------------------

const AT = new Float64Array(11);

/** Write alpha and colours of every pixel of a cell. */
function apply(
  result: Uint8ClampedArray,
  size: Size,
  small: Small,
  row: number,
  column: number,
  values: Plane[],
): void {
  const { step, height, width } = small;
  const bottom = Math.min((row + 1) * step, size.height);
  const right = Math.min((column + 1) * step, size.width);
  for (let y = row * step; y < bottom; y++) {
    // Between this cell and its neighbour, above or below.
    const down = (y + 0.5) / step - 0.5 - row;
    const otherRow = Math.min(Math.max(down < 0 ? row - 1 : row + 1, 0), height - 1);
    const v = Math.abs(down);
    for (let x = column * step; x < right; x++) {
      const across = (x + 0.5) / step - 0.5 - column;
      const otherColumn = Math.min(Math.max(across < 0 ? column - 1 : column + 1, 0), width - 1);
      const u = Math.abs(across);
      const [a, b] = [row * width + column, row * width + otherColumn];
      const [c, d] = [otherRow * width + column, otherRow * width + otherColumn];
      for (let k = 0; k < 11; k++) {
        const plane = values[k]!;
        AT[k] =
          (1 - v) * ((1 - u) * plane[a]! + u * plane[b]!) +
          v * ((1 - u) * plane[c]! + u * plane[d]!);
      }
      mix(result, 4 * (y * size.width + x));
    }
  }
}

/** Write one pixel, by what lies at its place. */
function mix(result: Uint8ClampedArray, at: number): void {
  const inside = result[at + 3] ? 1 : 0;
  let alpha = AT[3]!;
  for (let c = 0; c < 3; c++) alpha += (AT[c]! * result[at + c]!) / 255;
  alpha = inside + AT[10]! * (Math.min(1, Math.max(0, alpha)) - inside);
  for (let c = 0; c < 3; c++) {
    // What is left when both sides' colours are taken from the pixel's belongs to the object.
    const own = 255 * AT[4 + c]!;
    const ground = 255 * AT[7 + c]!;
    const rest = result[at + c]! - (ground + alpha * (own - ground));
    result[at + c] = Math.floor(own + alpha * rest + 0.5);
  }
  result[at + 3] = Math.floor(255 * alpha + 0.5);
}
