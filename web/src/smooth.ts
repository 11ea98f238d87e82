/**
 * Quieter masks for moving pictures: probabilities averaged over time, where nothing moves.
 *
 * A network's answer trembles with the camera's noise, and so does the mask's edge. Each point of
 * the grid keeps a running average of its class probabilities. How fast it forgets depends on how
 * much the picture changed around it: at once where something moved, slowly where all is still. And
 * where it is still, the class that a point has is given up only for one that is clearly likelier.
 *
 * `deeplab segment` does the same to videos (`video/steady.py`); docs/video.md describes both.
 */

import type { Size } from './geometry';
import type { Grid } from './upsample';

/** The share of the new answer where the picture stands still: the last twelve frames count. */
const STILL = 0.08;
/** Mean change of green in a cell, 0..255, that is noise, and from which on it is motion. */
const NOISE = 4;
const MOTION = 19;
/** By how much a new class must be likelier where all is still: a factor of exp(0.1) = 1.11. */
const HOLD = 0.1;
/** Motion is looked for at every so many pixels, both ways. */
const EVERY = 2;
/** Probabilities below this are not told apart. */
const LEAST = 1e-6;

interface Past {
  probabilities: Float32Array;
  frame: Uint8Array;
  /** The class of each grid point. */
  winner: Uint16Array;
}

export class Smoother {
  private past: Past | undefined;

  /** Forget the past: another camera, another model. */
  reset(): void {
    this.past = undefined;
  }

  /**
   * Return logits whose softmax is the average over time.
   *
   * `frame` is what the network saw: RGB bytes of `size`. Interpolating the result and taking the
   * argmax gives the same mask as the logits themselves wherever all of the new answer is taken.
   */
  smooth(logits: Grid, frame: Uint8Array, size: Size): Grid {
    const values = softmax(logits);
    const { classes } = logits;
    const past = this.past;
    if (past?.probabilities.length !== values.length) {
      this.past = { probabilities: values, frame, winner: winners(values, classes) };
      return logits;
    }
    const moving = motion(past.frame, frame, size, logits);
    const told = new Float32Array(values.length);
    for (let i = 0; i < values.length; i++) {
      const point = Math.floor(i / classes);
      const share = Math.fround(STILL + (1 - STILL) * moving[point]!);
      const old = past.probabilities[i]!;
      values[i] = old + share * (values[i]! - old);
      told[i] = Math.log(Math.max(values[i]!, LEAST));
    }
    for (let point = 0; point < moving.length; point++) {
      told[point * classes + past.winner[point]!]! += HOLD * (1 - moving[point]!);
    }
    this.past = { probabilities: values, frame, winner: winners(told, classes) };
    return { ...logits, values: told };
  }
}

function winners(values: Float32Array, classes: number): Uint16Array {
  const out = new Uint16Array(values.length / classes);
  for (let i = 0; i < values.length; i++) {
    const point = Math.floor(i / classes);
    if (values[i]! > values[point * classes + out[point]!]!) out[point] = i % classes;
  }
  return out;
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

/**
 * How much moves at each grid point, 0..1.
 *
 * The mean change of a cell is looked at, not the changes of its pixels: noise goes away in it.
 */
function motion(before: Uint8Array, now: Uint8Array, size: Size, grid: Size): Float64Array {
  const change = new Float64Array(grid.height * grid.width);
  const pixels = new Float64Array(change.length);
  for (let y = 0; y < size.height; y += EVERY) {
    const row = Math.floor((y * grid.height) / size.height) * grid.width;
    for (let x = 0; x < size.width; x += EVERY) {
      const point = row + Math.floor((x * grid.width) / size.width);
      const green = (y * size.width + x) * 3 + 1;
      change[point]! += now[green]! - before[green]!;
      pixels[point]! += 1;
    }
  }
  for (let i = 0; i < change.length; i++)
    change[i] = Math.abs(change[i]!) / Math.max(1, pixels[i]!);
  return spread(change, grid).map((amount) =>
    Math.min(Math.max((amount - NOISE) / (MOTION - NOISE), 0), 1),
  );
}

/** The largest of each point and its neighbours: a network sees motion from beside it. */
function spread(change: Float64Array, { width }: Size): Float64Array {
  const wide = change.map((value, i) => {
    const x = i % width;
    return Math.max(value, x ? change[i - 1]! : 0, x + 1 < width ? change[i + 1]! : 0);
  });
  return wide.map((value, i) => Math.max(value, wide[i - width] ?? 0, wide[i + width] ?? 0));
}
