/** Blur what lies outside the objects; their colours do not bleed into it. */

/**
 * Return a small canvas that holds the blurred picture, to be drawn large.
 *
 * `inside` is opaque where the objects are; only pixels outside are averaged. A blurred picture has
 * no detail that a smaller one could not hold.
 */
export function blurOutside(
  picture: ImageBitmap,
  inside: OffscreenCanvas,
  radius: number,
): OffscreenCanvas {
  const shrink = Math.max(1, radius / 3);
  const width = Math.max(1, Math.round(picture.width / shrink));
  const height = Math.max(1, Math.round(picture.height / shrink));
  const small = new OffscreenCanvas(width, height);
  const context = small.getContext('2d', { willReadFrequently: true })!;
  context.imageSmoothingQuality = 'high';
  context.drawImage(picture, 0, 0, width, height);
  context.globalCompositeOperation = 'destination-out';
  context.drawImage(inside, 0, 0, width, height);
  const image = context.getImageData(0, 0, width, height);
  const planes = weighted(image.data);
  for (let pass = 0; pass < 2; pass++) {
    for (const plane of planes) {
      blurLines(plane, height, width, width, 1, radius / shrink);
      blurLines(plane, width, height, 1, width, radius / shrink);
    }
  }
  const [red, green, blue, weight] = planes as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  for (let i = 0; i < weight.length; i++) {
    const total = Math.max(weight[i]!, 1e-3); // deep inside an object nothing is shown
    image.data[4 * i] = red[i]! / total;
    image.data[4 * i + 1] = green[i]! / total;
    image.data[4 * i + 2] = blue[i]! / total;
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return small;
}

/** The three colours, each times alpha, and alpha itself: 0..1. */
function weighted(rgba: Uint8ClampedArray): Float32Array[] {
  return [0, 1, 2, 3].map((channel) =>
    Float32Array.from({ length: rgba.length / 4 }, (_, i) => {
      const alpha = rgba[4 * i + 3]! / 255;
      return channel === 3 ? alpha : rgba[4 * i + channel]! * alpha;
    }),
  );
}

/** Running mean along every line; two passes are close to a Gaussian of that radius. */
function blurLines(
  plane: Float32Array,
  lines: number,
  length: number,
  lineStep: number,
  step: number,
  radius: number,
): void {
  const reach = Math.max(1, Math.round(1.2 * radius));
  const line = new Float32Array(length);
  for (let n = 0; n < lines; n++) {
    const start = n * lineStep;
    for (let i = 0; i < length; i++) line[i] = plane[start + i * step]!;
    const at = (i: number) => line[Math.min(Math.max(i, 0), length - 1)]!;
    let sum = 0;
    for (let i = -reach; i <= reach; i++) sum += at(i);
    for (let i = 0; i < length; i++) {
      plane[start + i * step] = sum / (2 * reach + 1);
      sum += at(i + reach + 1) - at(i - reach);
    }
  }
}
