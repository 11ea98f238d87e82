/**
 * What moved between two frames, and where to, for every point of a network's grid.
 *
 * `deeplab segment` does the same to videos (`video/motion.py`); docs/video.md describes both. All
 * is counted in whole numbers as far as possible, so that both find the same.
 */

import type { Size } from './geometry';

/** Mean change of green in a cell, 0..255, that is noise, and from which on it is motion. */
const NOISE = 4;
const MOTION = 19;
/** Motion is looked for at every so many pixels, both ways. */
const EVERY = 2;
/** A displacement is looked for up to `REACH` pixels away, in a picture halved `HALVINGS` times. */
const HALVINGS = 2;
const REACH = 4;
/** So many displacements are looked for: a camera's and a thing's, say. */
const DISPLACEMENTS = 2;
/** Fewer points that moved are not looked after. */
const FEW = 8;
/** Points that move by more, and did not follow the first displacement, look for the second. */
const UNEXPLAINED = 0.3;
/** How much moves, at least, where a displacement is followed: it is known to a pixel or so. */
const FOLLOWED = 0.4;

export interface Motion {
  /** How much the picture changed at each point, 0..1, seen from where it came from. */
  amount: Float64Array;
  /** How many grid points further down, and to the right, it was in the frame before. */
  down: Float64Array;
  right: Float64Array;
}

interface Displacement {
  dy: number;
  dx: number;
}

interface Picture extends Size {
  values: Int16Array;
}

/** A frame and the one before, and which of their pixels are looked at. */
interface Pair {
  before: Picture;
  now: Picture;
  where: Uint8Array;
}

/** Find what moved between two frames, RGB bytes of `size`. */
export function findMotion(before: Uint8Array, now: Uint8Array, size: Size, grid: Size): Motion {
  const [old, latest] = [greens(before, size), greens(now, size)];
  const cells = new Cells(size, latest, grid);
  const rest = changes(old, latest, { dy: 0, dx: 0 });
  const amount = cells.moving(rest);
  const changed = amount.map((value) => Number(value > 0));
  // The place it was at is given up only for one that is better by one of 255.
  const atRest = cells.add(rest.map(Math.abs)).map((sum, i) => sum - cells.pixels[i]!);
  const least = sumAround(atRest, grid);
  const down = new Float64Array(amount.length);
  const right = new Float64Array(amount.length);
  let open = changed;
  for (let turn = 0; turn < DISPLACEMENTS; turn++) {
    if (open.reduce((sum, one) => sum + one, 0) < FEW) break;
    const found = displacement(old, latest, cells.enlarge(open));
    if (!found.dy && !found.dx) break;
    const change = changes(old, latest, found);
    const difference = sumAround(cells.add(change.map(Math.abs)), grid);
    const left = cells.moving(change);
    const next = new Float64Array(amount.length);
    for (let i = 0; i < amount.length; i++) {
      if (changed[i] && difference[i]! < least[i]!) {
        least[i] = difference[i]!;
        amount[i] = FOLLOWED + (1 - FOLLOWED) * left[i]!;
        down[i] = (found.dy * EVERY * grid.height) / size.height;
        right[i] = (found.dx * EVERY * grid.width) / size.width;
      } else {
        next[i] = Number(amount[i]! > UNEXPLAINED);
      }
    }
    open = next;
  }
  return { amount, down, right };
}

/** Every second pixel's green, both ways. */
function greens(frame: Uint8Array, size: Size): Picture {
  const [height, width] = [Math.ceil(size.height / EVERY), Math.ceil(size.width / EVERY)];
  const values = new Int16Array(height * width);
  for (let y = 0, i = 0; y < size.height; y += EVERY) {
    for (let x = 0; x < size.width; x += EVERY) values[i++] = frame[(y * size.width + x) * 3 + 1]!;
  }
  return { height, width, values };
}

/** What changed since the frame before, each pixel seen from (dy, dx) further there. */
function changes(old: Picture, now: Picture, { dy, dx }: Displacement): Int16Array {
  const { height, width } = now;
  const out = new Int16Array(now.values.length);
  for (let y = 0, i = 0; y < height; y++) {
    const row = clamp(y + dy, height) * width;
    for (let x = 0; x < width; x++, i++) {
      out[i] = now.values[i]! - old.values[row + clamp(x + dx, width)]!;
    }
  }
  return out;
}

/**
 * The displacement in pixels that explains most of the change where it is looked at.
 *
 * What a displacement explains is summed over those pixels for which it is better than none: what
 * belongs to another thing, or to the ground, has no say against it.
 */
function displacement(before: Picture, now: Picture, where: Uint8Array): Displacement {
  const pairs: Pair[] = [{ before, now, where }];
  for (let i = 0; i < HALVINGS; i++) pairs.push(halvePair(pairs[i]!));
  const smallest = pairs[HALVINGS]!.now;
  let reach = Math.min(REACH, Math.floor(smallest.height / 4), Math.floor(smallest.width / 4));
  let found: Displacement = { dy: 0, dx: 0 };
  for (const pair of pairs.reverse()) {
    found = better(pair, { dy: 2 * found.dy, dx: 2 * found.dx }, reach);
    reach = 1;
  }
  return found;
}

/** The best displacement around `start`; the first of equals, but none before all. */
function better({ before, now, where }: Pair, start: Displacement, reach: number): Displacement {
  const { height, width } = now;
  let found: Displacement = { dy: 0, dx: 0 };
  let best = 0;
  for (let dy = start.dy - reach; dy <= start.dy + reach; dy++) {
    for (let dx = start.dx - reach; dx <= start.dx + reach; dx++) {
      let explained = 0;
      for (let y = 0, i = 0; y < height; y++) {
        const row = clamp(y + dy, height) * width;
        for (let x = 0; x < width; x++, i++) {
          if (!where[i]) continue;
          const value = now.values[i]!;
          const difference = Math.abs(value - before.values[row + clamp(x + dx, width)]!);
          explained += Math.max(0, Math.abs(value - before.values[i]!) - difference);
        }
      }
      if (explained > best) [best, found] = [explained, { dy, dx }];
    }
  }
  return found;
}

function halvePair({ before, now, where }: Pair): Pair {
  const [height, width] = [now.height >> 1, now.width >> 1];
  const there = new Uint8Array(height * width);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) there[i++] = where[2 * y * now.width + 2 * x]!;
  }
  return { before: halve(before), now: halve(now), where: there };
}

function halve({ values, ...from }: Picture): Picture {
  const [height, width] = [from.height >> 1, from.width >> 1];
  const out = new Int16Array(height * width);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = 2 * y * from.width + 2 * x;
      const below = at + from.width;
      out[i++] = (values[at]! + values[at + 1]! + values[below]! + values[below + 1]!) >> 2;
    }
  }
  return { height, width, values: out };
}

function clamp(at: number, size: number): number {
  return at < 0 ? 0 : at >= size ? size - 1 : at;
}

/** Every second pixel of a frame, by the grid point to whose cell it belongs. */
class Cells {
  readonly pixels: Float64Array;
  private readonly point: Uint32Array;

  constructor(
    size: Size,
    picture: Size,
    private readonly grid: Size,
  ) {
    this.point = new Uint32Array(picture.height * picture.width);
    for (let y = 0, i = 0; y < picture.height; y++) {
      const row = Math.floor((y * EVERY * grid.height) / size.height) * grid.width;
      for (let x = 0; x < picture.width; x++) {
        this.point[i++] = row + Math.floor((x * EVERY * grid.width) / size.width);
      }
    }
    this.pixels = this.add(new Int16Array(this.point.length).fill(1));
  }

  /** The sum over each cell. */
  add(values: Int16Array): Float64Array {
    const sums = new Float64Array(this.grid.height * this.grid.width);
    values.forEach((value, i) => (sums[this.point[i]!]! += value));
    return sums;
  }

  /**
   * How much moves at each grid point, 0..1.
   *
   * The mean change of a cell is looked at, not the changes of its pixels: noise goes away in it.
   */
  moving(change: Int16Array): Float64Array {
    const mean = this.add(change).map((sum, i) => Math.abs(sum) / Math.max(1, this.pixels[i]!));
    return mostAround(mean, this.grid).map((amount) =>
      Math.min(Math.max((amount - NOISE) / (MOTION - NOISE), 0), 1),
    );
  }

  /** What the grid point of each pixel says. */
  enlarge(points: Float64Array): Uint8Array {
    return Uint8Array.from(this.point, (point) => points[point]!);
  }
}

/** The largest of each point and its neighbours: a network sees motion from beside it. */
function mostAround(amount: Float64Array, { width }: Size): Float64Array {
  const wide = amount.map((value, i) => {
    const x = i % width;
    return Math.max(value, x ? amount[i - 1]! : 0, x + 1 < width ? amount[i + 1]! : 0);
  });
  return wide.map((value, i) => Math.max(value, wide[i - width] ?? 0, wide[i + width] ?? 0));
}

/** The sum of each point and its neighbours. */
function sumAround(values: Float64Array, { width }: Size): Float64Array {
  const wide = values.map((value, i) => {
    const x = i % width;
    return value + (x ? values[i - 1]! : 0) + (x + 1 < width ? values[i + 1]! : 0);
  });
  return wide.map((value, i) => value + (wide[i - width] ?? 0) + (wide[i + width] ?? 0));
}
