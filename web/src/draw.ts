/** Draw a picture with what a network saw in it: overlay, cut-out, blurred or other background. */

import { blurOutside } from './blur';
import type { Segmented } from './engine';
import type { Size } from './geometry';
import type { LabelSet } from './labels';

export type Effect = 'overlay' | 'cutout' | 'blur' | 'replace';

export interface Look {
  effect: Effect;
  /** Of the overlay, 0..1. */
  opacity: number;
  /** Class ids that are not drawn, and do not count as objects. */
  hidden: ReadonlySet<number>;
  /** What stands behind the objects when the background is replaced. */
  background: ImageBitmap | string;
}

export class Painter {
  private readonly context: CanvasRenderingContext2D;
  private readonly layer = new OffscreenCanvas(1, 1);
  private readonly layerContext = this.layer.getContext('2d')!;
  private pixels = new ImageData(1, 1);

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.context = canvas.getContext('2d')!;
  }

  /** Draw at the picture's own size; the canvas is scaled by the page. */
  paint(result: Segmented, labels: LabelSet, look: Look): void {
    this.resize(result);
    const { context, layer } = this;
    context.globalCompositeOperation = 'copy';
    context.drawImage(result.picture, 0, 0);
    if (look.effect === 'overlay') {
      this.fillLayer(result.mask, tints(labels, look));
      context.globalCompositeOperation = 'source-over';
      context.drawImage(layer, 0, 0);
      return;
    }
    this.fillLayer(result.mask, kept(labels, look));
    const shorter = Math.min(result.height, result.width);
    const behind = look.effect === 'blur' ? blurOutside(result.picture, layer, shorter / 40) : null;
    if (look.effect !== 'cutout') this.softenLayer(shorter / 200);
    context.globalCompositeOperation = 'destination-in';
    context.drawImage(layer, 0, 0);
    context.globalCompositeOperation = 'destination-over';
    if (behind) context.drawImage(behind, 0, 0, result.width, result.height);
    if (look.effect === 'replace') this.drawBackground(look.background, result);
  }

  private resize({ height, width }: Size): void {
    for (const canvas of [this.canvas, this.layer]) {
      // Setting a size clears a canvas, so only where it changes.
      if (canvas.height !== height || canvas.width !== width) {
        canvas.height = height;
        canvas.width = width;
      }
    }
    if (this.pixels.height !== height || this.pixels.width !== width) {
      this.pixels = new ImageData(width, height);
    }
  }

  private fillLayer(mask: Uint8Array, colours: Uint32Array): void {
    const pixels = new Uint32Array(this.pixels.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = colours[mask[i]!]!;
    this.layerContext.putImageData(this.pixels, 0, 0);
  }

  /** Let the layer's edges fade over a few pixels: drawn smaller, and large again. */
  private softenLayer(pixels: number): void {
    const { height, width } = this.layer;
    const small = new OffscreenCanvas(Math.ceil(width / pixels), Math.ceil(height / pixels));
    if (small.width >= width) return;
    const context = small.getContext('2d')!;
    context.imageSmoothingQuality = 'high';
    context.drawImage(this.layer, 0, 0, small.width, small.height);
    this.layerContext.clearRect(0, 0, width, height);
    this.layerContext.drawImage(small, 0, 0, width, height);
  }

  /** Fill what lies behind with one colour, or with a picture scaled and cropped to fill it. */
  private drawBackground(background: ImageBitmap | string, { height, width }: Size): void {
    if (typeof background === 'string') {
      this.context.fillStyle = background;
      this.context.fillRect(0, 0, width, height);
      return;
    }
    const scale = Math.max(width / background.width, height / background.height);
    const [w, h] = [background.width * scale, background.height * scale];
    this.context.imageSmoothingQuality = 'high';
    this.context.drawImage(background, (width - w) / 2, (height - h) / 2, w, h);
  }
}

/** The classes that are drawn: all but the background and those that were switched off. */
export function isDrawn(id: number, labels: LabelSet, hidden: ReadonlySet<number>): boolean {
  return id < labels.names.length && id !== labels.background && !hidden.has(id);
}

function tints(labels: LabelSet, { opacity, hidden }: Look): Uint32Array {
  return table((id) => {
    if (!isDrawn(id, labels, hidden)) return [0, 0, 0, 0];
    return [...labels.colours[id]!, Math.round(opacity * 255)];
  });
}

function kept(labels: LabelSet, { hidden }: Look): Uint32Array {
  return table((id) => [0, 0, 0, isDrawn(id, labels, hidden) ? 255 : 0]);
}

/** One RGBA pixel per class id, in the order in which memory holds them. */
function table(colour: (id: number) => number[]): Uint32Array {
  const bytes = Uint8Array.from({ length: 256 }, (_, id) => id);
  return new Uint32Array(Uint8Array.from([...bytes].flatMap(colour)).buffer);
}
