/** Label maps of networks that give no logits: enlarge them to the photo's size. */

import type { Size } from './geometry';

/** Return the photo's part of a label map at the photo's size, by nearest neighbour. */
export function enlarge(
  map: Uint8Array,
  mapSize: Size,
  size: Size,
  frame: Size,
  content: Size,
): Uint8Array<ArrayBuffer> {
  const rows = pick(size.height, content.height, mapSize.height, frame.height);
  const columns = pick(size.width, content.width, mapSize.width, frame.width);
  const mask = new Uint8Array(size.height * size.width);
  let i = 0;
  for (const row of rows) {
    for (const column of columns) mask[i++] = map[row * mapSize.width + column]!;
  }
  return mask;
}

function pick(size: number, span: number, map: number, frame: number): Int32Array {
  const scale = map / frame;
  return Int32Array.from({ length: size }, (_, i) =>
    Math.min(Math.trunc((i + 0.5) * (span / size) * scale), map - 1),
  );
}
