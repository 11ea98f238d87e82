/**
 * Quieter masks for moving pictures: probabilities averaged over time, where nothing moves.
 *
 * A network's answer trembles with the camera's noise, and so does the mask's edge. Each point of
 * the grid keeps a running average of its class probabilities. How fast it forgets depends on how
 * much the picture changed around it: at once where something moved, slowly where all is still.
 */

import type { Size } from './geometry';
import type { Grid } from './upsample';

/** The share of the new answer where the picture stands still: about the last four frames count. */
const STILL = 0.3;
/** Mean change of green, 0..255, that is taken for noise, and from which on it is motion. */
const NOISE = 4;
const MOTION = 14;
/** Motion is looked for at every so many pixels, both ways. */
const EVERY = 2;
/** Probabilities below this are not told apart. */
const LEAST = 1e-6;

export class Smoother {
  private previous: { grid: Grid; frame: Uint8Array } | undefined;

  /** Forget the past: another camera, another model. */
  reset(): void {
    this.previous = undefined;
  }

  /**
   * Return logits whose softmax is the average over time.
   *
   * `frame` is what the network saw: RGB bytes of `size`. Interpolating the result and taking the
   * argmax gives the same mask as the logits themselves wherever all of the new answer is taken.
   */
  smooth(logits: Grid, frame: Uint8Array, size: Size): Grid {
    const grid = { ...logits, values: softmax(logits) };
    const past = this.previous;
    this.previous = { grid, frame };
    if (past?.grid.values.length !== grid.values.length) return logits;
    const share = newShares(past.frame, frame, size, grid);
    const { classes, values } = grid;
    for (let i = 0; i < values.length; i++) {
      const old = past.grid.values[i]!;
      values[i] = old + share[Math.floor(i / classes)]! * (values[i]! - old);
    }
    return { ...grid, values: grid.values.map((p) => Math.log(Math.max(p, LEAST))) };
  }
}

function softmax({ values, classes }: Grid): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0; i < values.length; i += classes) {
    let most = -Infinity;
    for (let c = i; c < i + classes; c++) most = Math.max(most, values[c]!);
    let sum = 0;
    for (let c = i; c < i + classes; c++) sum += out[c] = Math.exp(values[c]! - most);
    for (let c = i; c < i + classes; c++) out[c]! /= sum;
  }
  return out;
}

/** How much of the new answer to take at each grid point, STILL..1. */
function newShares(before: Uint8Array, now: Uint8Array, size: Size, grid: Size): Float32Array {
  const change = new Float32Array(grid.height * grid.width);
  const pixels = new Float32Array(change.length);
  for (let y = 0; y < size.height; y += EVERY) {
    const row = Math.floor((y * grid.height) / size.height) * grid.width;
    for (let x = 0; x < size.width; x += EVERY) {
      const point = row + Math.floor((x * grid.width) / size.width);
      const green = (y * size.width + x) * 3 + 1;
      change[point]! += Math.abs(now[green]! - before[green]!);
      pixels[point]! += 1;
    }
  }
  for (let i = 0; i < change.length; i++) change[i]! /= Math.max(1, pixels[i]!);
  return spread(change, grid).map((amount) => {
    const moving = Math.min(Math.max((amount - NOISE) / (MOTION - NOISE), 0), 1);
    return STILL + (1 - STILL) * moving;
  });
}

/** The largest of each point and its neighbours: a network sees motion from beside it. */
function spread(change: Float32Array, { width }: Size): Float32Array {
  const wide = change.map((value, i) => {
    const x = i % width;
    return Math.max(value, x ? change[i - 1]! : 0, x + 1 < width ? change[i + 1]! : 0);
  });
  return wide.map((value, i) => Math.max(value, wide[i - width] ?? 0, wide[i + width] ?? 0));
}
