import { describe, expect, it } from 'vitest';

import { Smoother } from '../src/smooth';
import { argmax, argmaxBilinear, type Grid } from '../src/upsample';
import { randomNumbers } from './random';

const FRAME = { height: 66, width: 66 };
const next = randomNumbers(1);

function still(noise: number, base = 90): Uint8Array {
  const bytes = FRAME.height * FRAME.width * 3;
  return Uint8Array.from({ length: bytes }, () => base + noise * (next() - 0.5));
}

/** Logits of a scene with an edge in the middle, and the trembling that camera noise brings. */
function noisyAnswer(classes = 3): Grid {
  const [height, width] = [33, 33];
  const values = Float32Array.from({ length: height * width * classes }, (_, i) => {
    const x = Math.floor(i / classes) % width;
    const signal = i % classes === (x < 16 ? 0 : 1) ? Math.min(Math.abs(x - 16), 4) * 0.5 : 0;
    return signal + 1.2 * (next() - 0.5);
  });
  return { height, width, classes, values };
}

function flicker(masks: Uint8Array[]): number {
  let changes = 0;
  for (let i = 1; i < masks.length; i++) {
    masks[i]!.forEach((id, pixel) => (changes += Number(id !== masks[i - 1]![pixel])));
  }
  return changes / ((masks.length - 1) * masks[0]!.length);
}

describe('Smoother', () => {
  const size = { height: 132, width: 132 };
  const mask = (grid: Grid) => argmaxBilinear(grid, size, true);

  it('calms the mask of a still scene', () => {
    const smoother = new Smoother();
    const answers = Array.from({ length: 12 }, () => noisyAnswer());
    const raw = answers.map(mask);
    const smooth = answers.map((answer) => mask(smoother.smooth(answer, still(6), FRAME)));
    console.log(
      `flicker: ${(100 * flicker(raw)).toFixed(2)} % of the pixels change from frame to frame, ` +
        `smoothed ${(100 * flicker(smooth.slice(4))).toFixed(2)} %`,
    );
    expect(flicker(smooth.slice(4))).toBeLessThan(0.5 * flicker(raw));
  });

  it('follows motion at once', () => {
    const smoother = new Smoother();
    smoother.smooth(noisyAnswer(), still(0), FRAME);
    const answer = noisyAnswer();
    const moved = smoother.smooth(answer, still(0, 160), FRAME);
    expect(argmax(moved)).toEqual(argmax(answer));
  });

  it('keeps the first answer, and starts anew when it is told to', () => {
    const smoother = new Smoother();
    const [first, second] = [noisyAnswer(), noisyAnswer()];
    expect(smoother.smooth(first, still(0), FRAME)).toBe(first);
    smoother.reset();
    expect(smoother.smooth(second, still(0), FRAME)).toBe(second);
  });
});
