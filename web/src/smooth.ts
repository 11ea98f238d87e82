/**
 * Quieter masks for moving pictures: probabilities averaged over time, where nothing moves.
 *
 * A network's answer trembles with the camera's noise, and so does the mask's edge. Each point of
 * the grid keeps a running average of its class probabilities. How fast it forgets depends on how
 * much the picture changed around it: at once where something moved, slowly where all is still. What
 * moved as a whole takes its average along. And where it is still, the class that a point has is
 * given up only for one that is clearly likelier.
 *
 * `deeplab segment` does the same to videos (`video/steady.py`); docs/video.md describes both.
 */

import type { Size } from './geometry';
import { findMotion, type Motion } from './motion';
import type { Grid } from './upsample';

/** The share of the new answer where the picture stands still: the last twelve frames count. */
const STILL = 0.08;
/** By how much a new class must be likelier where all is still: a factor of exp(0.1) = 1.11. */
const HOLD = 0.1;
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
    const motion = findMotion(past.frame, frame, size, logits);
    const { probabilities, winner } = moved(past, motion, logits);
    const moving = motion.amount;
    const told = new Float32Array(values.length);
    for (let i = 0; i < values.length; i++) {
      const point = Math.floor(i / classes);
      const share = Math.fround(STILL + (1 - STILL) * moving[point]!);
      const old = probabilities[i]!;
      values[i] = old + Math.fround(share * Math.fround(values[i]! - old));
      told[i] = Math.log(Math.max(values[i]!, LEAST));
    }
    for (let point = 0; point < moving.length; point++) {
      told[point * classes + winner[point]!]! += HOLD * (1 - moving[point]!);
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

/** The average and the class of each point where its picture was in the frame before. */
function moved(past: Past, { down, right }: Motion, grid: Grid): Omit<Past, 'frame'> {
  const { height, width, classes } = grid;
  const [probabilities, winner] = [past.probabilities.slice(), past.winner.slice()];
  const before = past.probabilities;
  for (let point = 0; point < winner.length; point++) {
    if (!down[point] && !right[point]) continue;
    const y = Math.min(Math.max(Math.floor(point / width) + down[point]!, 0), height - 1);
    const x = Math.min(Math.max((point % width) + right[point]!, 0), width - 1);
    const [top, left] = [Math.floor(y), Math.floor(x)];
    const [bottom, far] = [Math.min(top + 1, height - 1), Math.min(left + 1, width - 1)];
    for (let c = 0; c < classes; c++) {
      const at = (row: number, column: number) => before[(row * width + column) * classes + c]!;
      const above = at(top, left) + (x - left) * (at(top, far) - at(top, left));
      const below = at(bottom, left) + (x - left) * (at(bottom, far) - at(bottom, left));
      probabilities[point * classes + c] = above + (y - top) * (below - above);
    }
    winner[point] = past.winner[Math.floor(y + 0.5) * width + Math.floor(x + 0.5)]!;
  }
  return { probabilities, winner };
}
