import { describe, expect, it } from 'vitest';

import { argmaxBilinear, type Grid, type Region } from '../src/upsample';
import type { Size } from '../src/geometry';
import { randomNumbers } from './random';

function randomGrid(height: number, width: number, classes: number, seed: number, coarse = false) {
  const next = randomNumbers(seed);
  const values = Float32Array.from({ length: height * width * classes }, () =>
    coarse ? Math.round(next() * 3) : next() * 8 - 4,
  );
  return { height, width, classes, values };
}

/** Interpolate every class at every pixel in 64 bits, and take the argmax. */
function bruteForce(grid: Grid, size: Size, alignCorners: boolean, region?: Region): Uint8Array {
  const { frame, content } = region ?? { frame: size, content: size };
  const place = (i: number, n: number, span: number, whole: number, points: number) => {
    const scale = span / n;
    const pixel = Math.min(Math.max(scale * i + (0.5 * scale - 0.5), 0), span - 1);
    const position = alignCorners
      ? (whole > 1 ? (points - 1) / (whole - 1) : 0) * pixel
      : (points / whole) * pixel + ((0.5 * points) / whole - 0.5);
    const clamped = Math.min(Math.max(position, 0), points - 1);
    const low = Math.floor(clamped);
    return { low, high: Math.min(low + 1, points - 1), weight: clamped - low };
  };
  const at = (y: number, x: number, c: number) =>
    grid.values[(y * grid.width + x) * grid.classes + c]!;
  const mask = new Uint8Array(size.height * size.width);
  for (let i = 0; i < mask.length; i++) {
    const row = Math.floor(i / size.width);
    const y = place(row, size.height, content.height, frame.height, grid.height);
    const x = place(i % size.width, size.width, content.width, frame.width, grid.width);
    let most = -Infinity;
    for (let c = 0; c < grid.classes; c++) {
      const [a, b] = [at(y.low, x.low, c), at(y.low, x.high, c)];
      const [d, e] = [at(y.high, x.low, c), at(y.high, x.high, c)];
      const top = a + x.weight * (b - a);
      const value = top + y.weight * (d + x.weight * (e - d) - top);
      if (value > most) [most, mask[i]] = [value, c];
    }
  }
  return mask;
}

describe('argmaxBilinear', () => {
  const sizes: [number, number, number, number, number][] = [
    [5, 7, 3, 40, 61],
    [9, 9, 21, 33, 17],
    [1, 1, 4, 6, 5],
    [1, 6, 2, 9, 50],
    [8, 3, 256, 20, 30],
    [12, 10, 5, 7, 4],
  ];
  it.each(sizes)('equals the brute force: %i×%i×%i to %i×%i', (h, w, classes, height, width) => {
    for (const alignCorners of [true, false]) {
      const grid = randomGrid(h, w, classes, h * w + classes);
      const size = { height, width };
      expect(argmaxBilinear(grid, size, alignCorners)).toEqual(
        bruteForce(grid, size, alignCorners),
      );
    }
  });

  it('looks at the photo inside its frame only', () => {
    const grid = randomGrid(9, 9, 6, 3);
    const region = { frame: { height: 65, width: 65 }, content: { height: 65, width: 37 } };
    const size = { height: 211, width: 120 };
    for (const alignCorners of [true, false]) {
      expect(argmaxBilinear(grid, size, alignCorners, region)).toEqual(
        bruteForce(grid, size, alignCorners, region),
      );
    }
  });

  it('gives ties to the lowest class', () => {
    const grid = randomGrid(6, 6, 4, 5, true);
    const size = { height: 31, width: 31 };
    expect(argmaxBilinear(grid, size, true)).toEqual(bruteForce(grid, size, true));
    const flat = { height: 3, width: 3, classes: 4, values: new Float32Array(36).fill(1) };
    expect(argmaxBilinear(flat, size, true).every((id) => id === 0)).toBe(true);
  });

  it('refuses numbers that are not finite', () => {
    const grid = randomGrid(3, 3, 2, 1);
    grid.values[4] = NaN;
    expect(() => argmaxBilinear(grid, { height: 5, width: 5 }, true)).toThrow(/not finite/);
  });
});
