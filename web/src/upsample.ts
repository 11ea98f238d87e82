/**
 * From a small grid of logits to a full-size mask, exactly, without the full-size logits.
 *
 * Inside a grid cell, bilinear interpolation is a convex combination of the cell's four corners. A
 * class that wins at all four corners wins in the whole cell: most cells are filled as blocks. A
 * class that a corner's winner beats at all four corners wins nowhere in the cell: in the others
 * only two or three classes are interpolated, and only where one may overtake another. The result
 * equals interpolating every class in 64 bits and taking the argmax, pixel for pixel, as
 * `upsample.py` gives it.
 */

import type { Size } from './geometry';

/** Logits of a network: (height, width, classes), classes running fastest. */
export interface Grid extends Size {
  classes: number;
  values: Float32Array;
}

/** Where a letterboxed photo lies: the top left `content` of the network's `frame`. */
export interface Region {
  frame: Size;
  content: Size;
}

/**
 * Return the argmax over classes of bilinearly upsampled logits: `size` class ids, row by row.
 *
 * `alignCorners` says how the grid lies on its frame: the centres of the corner pixels coincide
 * (TensorFlow's DeepLab), or their edges do. The lowest class id wins ties.
 */
export function argmaxBilinear(
  logits: Grid,
  size: Size,
  alignCorners: boolean,
  region: Region = { frame: size, content: size },
): Uint8Array<ArrayBuffer> {
  if (!logits.values.every(Number.isFinite)) {
    throw new Error('The network answered with numbers that are not finite; it is broken.');
  }
  const rows = placePixels(
    logits.height,
    size.height,
    alignCorners,
    region.frame.height,
    region.content.height,
  );
  const columns = placePixels(
    logits.width,
    size.width,
    alignCorners,
    region.frame.width,
    region.content.width,
  );
  const winners = argmax(logits);
  const mask = new Uint8Array(size.height * size.width);
  for (const strip of rows.runs) {
    fillStrip(mask, size.width, logits, winners, rows, columns, strip);
  }
  return mask;
}

/** The class with the largest logit, of every grid point; the lowest id wins ties. */
export function argmax({ values, classes }: Grid): Uint8Array {
  const winners = new Uint8Array(values.length / classes);
  for (let point = 0, i = 0; point < winners.length; point++, i += classes) {
    let best = 0;
    for (let c = 1; c < classes; c++) if (values[i + c]! > values[i + best]!) best = c;
    winners[point] = best;
  }
  return winners;
}

/** One axis of the output: pixel `i` lies in grid cell `cell[i]`, `weight[i]` into it. */
interface Axis {
  cell: Int32Array;
  weight: Float64Array;
  /** Runs of pixels in the same cell: from the first to before `end`. */
  runs: Run[];
}

interface Run {
  start: number;
  end: number;
}

export function placePixels(
  grid: number,
  size: number,
  alignCorners: boolean,
  frame: number,
  content: number,
): Axis {
  const cell = new Int32Array(size);
  const weight = new Float64Array(size);
  const runs: Run[] = [];
  const scale = content / size; // from photo pixels to frame pixels, edges aligned
  const offset = 0.5 * scale - 0.5;
  const step = alignCorners ? (frame > 1 ? (grid - 1) / (frame - 1) : 0) : grid / frame;
  const shift = alignCorners ? 0 : (0.5 * grid) / frame - 0.5;
  for (let i = 0; i < size; i++) {
    const pixel = Math.min(Math.max(scale * i + offset, 0), content - 1);
    const position = Math.min(Math.max(step * pixel + shift, 0), grid - 1);
    cell[i] = position; // whole part; the last grid point is a cell of its own, all weights 0
    weight[i] = position - cell[i]!;
    if (i && cell[i] === cell[i - 1]) runs[runs.length - 1]!.end = i + 1;
    else runs.push({ start: i, end: i + 1 });
  }
  return { cell, weight, runs };
}

/** Fill the rows of the mask that lie in one row of grid cells. */
function fillStrip(
  mask: Uint8Array,
  width: number,
  logits: Grid,
  winners: Uint8Array,
  rows: Axis,
  columns: Axis,
  strip: Run,
): void {
  const top = rows.cell[strip.start]! * logits.width;
  const bottom = Math.min(rows.cell[strip.start]! + 1, logits.height - 1) * logits.width;
  const first = strip.start * width;
  const mixed: Run[] = [];
  for (const run of columns.runs) {
    const left = columns.cell[run.start]!;
    const right = Math.min(left + 1, logits.width - 1);
    const winner = winners[top + left]!;
    const agree =
      winner === winners[top + right] &&
      winner === winners[bottom + left] &&
      winner === winners[bottom + right];
    mask.fill(winner, first + run.start, first + run.end);
    if (!agree) mixed.push(run);
  }
  for (let y = strip.start + 1; y < strip.end; y++) {
    mask.copyWithin(y * width, first, first + width);
  }
  for (const run of mixed) fillMixedCell(mask, width, logits, winners, rows, columns, strip, run);
}

/** Interpolate the classes that may win somewhere in a cell at each of its pixels. */
function fillMixedCell(
  mask: Uint8Array,
  width: number,
  { height: h, width: w, classes, values }: Grid,
  winners: Uint8Array,
  rows: Axis,
  columns: Axis,
  strip: Run,
  run: Run,
): void {
  const top = rows.cell[strip.start]!;
  const left = columns.cell[run.start]!;
  const bottom = Math.min(top + 1, h - 1);
  const right = Math.min(left + 1, w - 1);
  const corners = [top * w + left, top * w + right, bottom * w + left, bottom * w + right];
  const alive = survivors(values, classes, corners, winners);
  const [a, b, c, d] = corners.map((corner) => corner * classes) as [
    number,
    number,
    number,
    number,
  ];
  const m = alive.length;
  for (let x = run.start; x < run.end; x++) {
    // Down one pixel column every class is a straight line: its value at the top, and its slope.
    const t = columns.weight[x]!;
    for (let k = 0; k < m; k++) {
      const id = alive[k]!;
      const above = values[a + id]! + t * (values[b + id]! - values[a + id]!);
      const below = values[c + id]! + t * (values[d + id]! - values[c + id]!);
      TOP[k] = above;
      SLOPE[k] = below - above;
    }
    let y = strip.start;
    while (y < strip.end) {
      const u = rows.weight[y]!;
      let best = 0;
      for (let k = 1; k < m; k++) {
        if (TOP[k]! + u * SLOPE[k]! > TOP[best]! + u * SLOPE[best]!) best = k;
      }
      const until = u + NEAR * overtaking(m, best, u);
      const id = alive[best]!;
      do mask[y++ * width + x] = id;
      while (y < strip.end && rows.weight[y]! < until);
    }
  }
}

const TOP = new Float64Array(256);
const SLOPE = new Float64Array(256);
/** A crossing is looked for a little earlier than its computed place; far below one pixel. */
const NEAR = 1 - 1e-12;

/** How far below `u` the first class that climbs faster than the best one overtakes it. */
function overtaking(m: number, best: number, u: number): number {
  const value = TOP[best]! + u * SLOPE[best]!;
  let nearest = Infinity;
  for (let k = 0; k < m; k++) {
    const rate = SLOPE[k]! - SLOPE[best]!;
    if (rate > 0) nearest = Math.min(nearest, (value - (TOP[k]! + u * SLOPE[k]!)) / rate);
  }
  return nearest;
}

/** The classes, ascending, that no corner's winner beats at all four corners. */
function survivors(
  values: Float32Array,
  classes: number,
  corners: number[],
  winners: Uint8Array,
): number[] {
  const alive: number[] = [];
  for (let id = 0; id < classes; id++) {
    let isBeaten = false;
    for (let i = 0; i < 4 && !isBeaten; i++) {
      const rival = winners[corners[i]!]!;
      isBeaten = rival !== id && beats(values, classes, corners, rival, id);
    }
    if (!isBeaten) alive.push(id);
  }
  return alive;
}

function beats(
  values: Float32Array,
  classes: number,
  corners: number[],
  rival: number,
  id: number,
): boolean {
  for (let i = 0; i < 4; i++) {
    const at = corners[i]! * classes;
    const lead = values[at + rival]! - values[at + id]!;
    if (lead < 0 || (lead === 0 && rival > id)) return false;
  }
  return true;
}
