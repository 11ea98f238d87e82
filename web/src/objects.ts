/** Single objects: the connected pixels of one class around a point. */

import type { Size } from './geometry';

/** Of every pixel of a picture, 1 where somebody dropped it by hand. */
export type Dropped = Uint8Array;

/** Return the indices of the pixels of one class that are connected with a pixel, by their sides. */
export function objectAt(mask: Uint8Array, { width }: Size, start: number): number[] {
  const id = mask[start]!;
  const seen = new Uint8Array(mask.length);
  const found: number[] = [start];
  seen[start] = 1;
  const visit = (i: number) => {
    if (seen[i] || mask[i] !== id) return;
    seen[i] = 1;
    found.push(i);
  };
  for (let next = 0; next < found.length; next++) {
    const at = found[next]!;
    const x = at % width;
    if (x > 0) visit(at - 1);
    if (x + 1 < width) visit(at + 1);
    if (at >= width) visit(at - width);
    if (at + width < mask.length) visit(at + width);
  }
  return found;
}

/** Drop the object at a pixel, or take it back where it is dropped already. */
export function toggleObject(
  dropped: Dropped | null,
  mask: Uint8Array,
  size: Size,
  start: number,
): Dropped | null {
  const pixels = dropped ? dropped.slice() : new Uint8Array(mask.length);
  const value = pixels[start] ? 0 : 1;
  for (const i of objectAt(mask, size, start)) pixels[i] = value;
  return pixels.includes(1) ? pixels : null;
}

/** Drop everything but the object at a pixel. */
export function keepAlone(mask: Uint8Array, size: Size, start: number): Dropped {
  const pixels = new Uint8Array(mask.length).fill(1);
  for (const i of objectAt(mask, size, start)) pixels[i] = 0;
  return pixels;
}
