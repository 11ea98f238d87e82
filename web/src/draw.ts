/** Draw a picture with what a network saw in it: tinted, outlined, cut out, on another ground. */

import { blurOutside } from './blur';
import { sumShares } from './class_shares';
import { softCutout } from './edges';
import type { Segmented } from './engine';
import type { Size } from './geometry';
import type { Colour, LabelSet } from './labels';
import type { Dropped } from './objects';
import { hasClass, planeOf, topmostOf } from './overlapping';
import { displayColours } from './palette';

export const EFFECTS = [
  'overlay',
  'outline',
  'cutout',
  'blur',
  'replace',
  'mask',
  'confidence',
] as const;
export type Effect = (typeof EFFECTS)[number];

export interface Look {
  effect: Effect;
  /** Of the overlay, 0..1. */
  opacity: number;
  /** Class ids that are not drawn, and do not count as objects. */
  hidden: ReadonlySet<number>;
  /** Single objects that are not drawn; those of the picture on the screen. */
  dropped: Dropped | null;
  /** Pixels whose class is less probable than this, 0..1, are not drawn. */
  threshold: number;
  /** What stands behind the objects when the background is replaced. */
  background: ImageBitmap | string;
}

/** Where nothing is drawn, in the masks that are made here. */
const NOTHING = 255;
/** From unsure to sure: dark violet, red, orange, pale yellow. */
const RAMP: Colour[] = [
  [13, 8, 60],
  [120, 28, 109],
  [212, 72, 66],
  [251, 159, 6],
  [252, 255, 164],
];

export class Painter {
  private readonly context: CanvasRenderingContext2D;
  private readonly layer = new OffscreenCanvas(1, 1);
  private readonly layerContext = this.layer.getContext('2d')!;
  private pixels = new ImageData(1, 1);
  private readonly colours = new WeakMap<LabelSet, Colour[]>();

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.context = canvas.getContext('2d')!;
  }

  /** Draw a picture of which nothing is known yet. */
  paintPlain(picture: CanvasImageSource & Size): void {
    this.resize(picture);
    this.context.globalCompositeOperation = 'copy';
    this.context.drawImage(picture, 0, 0, picture.width, picture.height);
  }

  /** Draw at the picture's own size; the canvas is scaled by the page. */
  paint(result: Segmented, labels: LabelSet, look: Look): void {
    this.paintPlain(result.picture);
    const { context, layer } = this;
    const drawn = drawnMask(result, labels, look);
    context.globalCompositeOperation = 'source-over';
    switch (look.effect) {
      case 'overlay':
        this.fillTints(result, drawn, labels, look, look.opacity);
        context.drawImage(layer, 0, 0);
        return;
      case 'outline':
        for (const plane of outlined(result, drawn, labels, look)) this.drawOutlines(plane, labels);
        return;
      case 'mask':
        context.fillStyle = 'black';
        context.fillRect(0, 0, result.width, result.height);
        this.fillTints(result, drawn, labels, look, 1);
        context.drawImage(layer, 0, 0);
        return;
      case 'confidence':
        if (result.confidence) this.fillLayer(result.confidence, RAMP_TABLE);
        context.drawImage(layer, 0, 0);
        return;
      default:
        this.drawObjects(result, labels, drawn, look);
    }
  }

  /** The objects alone, with soft edges and without their ground's colours, on another ground. */
  private drawObjects(result: Segmented, labels: LabelSet, drawn: Uint8Array, look: Look): void {
    const { context, layer, layerContext } = this;
    const { height, width, shares } = result;
    const photo = context.getImageData(0, 0, width, height).data;
    const inside = drawn.map((id) => Number(id !== NOTHING));
    // What was taken out by hand, or for being unsure, is not what the network thinks.
    const isItsOwn = !look.dropped && !look.threshold;
    const probability =
      shares && isItsOwn ? sumShares(shares, (id) => isDrawn(id, labels, look.hidden)) : undefined;
    let behind: OffscreenCanvas | null = null;
    if (look.effect === 'blur') {
      this.fillLayer(drawn, OPAQUE);
      behind = blurOutside(result.picture, layer, Math.min(height, width) / 40);
    }
    const soft = softCutout(photo, inside, result, probability);
    layerContext.putImageData(new ImageData(soft, width, height), 0, 0);
    context.globalCompositeOperation = 'copy';
    context.drawImage(layer, 0, 0);
    context.globalCompositeOperation = 'destination-over';
    if (behind) context.drawImage(behind, 0, 0, width, height);
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

  private fillLayer(mask: Uint8Array, colours: Uint32Array, isWhole = true): void {
    const pixels = new Uint32Array(this.pixels.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = colours[mask[i]!]!;
    if (isWhole) this.layerContext.putImageData(this.pixels, 0, 0);
  }

  /** Tint every pixel by its class, or by the mean of its classes' colours where they overlap. */
  private fillTints(
    result: Segmented,
    drawn: Uint8Array,
    labels: LabelSet,
    look: Look,
    opacity: number,
  ): void {
    const tints = this.tints(labels, opacity);
    this.fillLayer(drawn, tints, result.bits === null);
    const { bits } = result;
    if (!bits) return;
    const pixels = new Uint32Array(this.pixels.data.buffer);
    const shown = shownClasses(result, labels, look);
    const mixed = new Map<string, number>();
    for (let at = 0; at < pixels.length; at++) {
      if (drawn[at] === NOTHING) continue;
      const there = shown.filter((id) => hasClass(bits, id, at));
      if (there.length < 2) continue;
      const key = there.join();
      const tint = mixed.get(key) ?? meanTint(there.map((id) => tints[id]!));
      mixed.set(key, tint);
      pixels[at] = tint;
    }
    this.layerContext.putImageData(this.pixels, 0, 0);
  }

  /** A line in its colour around every object, with a dark line around that. */
  private drawOutlines(drawn: Uint8Array, labels: LabelSet): void {
    const { height, width } = this.layer;
    const edges = edgesOf(drawn, { height, width });
    const reach = Math.max(1, Math.round(Math.min(height, width) / 350));
    const draw = (colours: Uint32Array, radius: number) => {
      this.fillLayer(edges, colours);
      for (let dy = -radius; dy <= radius; dy++) {
        for (let dx = -radius; dx <= radius; dx++) this.context.drawImage(this.layer, dx, dy);
      }
    };
    draw(DARK, reach + 1);
    draw(this.tints(labels, 1), reach);
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

  private tints(labels: LabelSet, opacity: number): Uint32Array {
    let colours = this.colours.get(labels);
    if (!colours) this.colours.set(labels, (colours = displayColours(labels)));
    const alpha = Math.round(opacity * 255);
    return table((id) => (colours[id] ? [...colours[id], alpha] : [0, 0, 0, 0]));
  }
}

/** The classes that are drawn: all but the background and those that were switched off. */
export function isDrawn(id: number, labels: LabelSet, hidden: ReadonlySet<number>): boolean {
  return id < labels.names.length && id !== labels.background && !hidden.has(id);
}

/** The classes that overlap and are drawn, of those that are there. */
function shownClasses({ counts }: Segmented, labels: LabelSet, { hidden }: Look): number[] {
  const ids = labels.names.map((_, id) => id);
  return ids.filter((id) => counts[id]! > 0 && isDrawn(id, labels, hidden));
}

/** What outlines are drawn of: of all classes together, or of each where they overlap. */
function outlined(
  result: Segmented,
  drawn: Uint8Array,
  labels: LabelSet,
  look: Look,
): Uint8Array[] {
  const { bits } = result;
  if (!bits) return [drawn];
  return shownClasses(result, labels, look).map((id) => planeOf(bits, id));
}

/** The mean of pixels, which are red, green, blue and opacity in the order of memory. */
function meanTint(tints: number[]): number {
  const channel = (shift: number) => {
    const sum = tints.reduce((total, tint) => total + ((tint >>> shift) & 255), 0);
    return (Math.round(sum / tints.length) << shift) >>> 0;
  };
  return (channel(0) | channel(8) | channel(16) | channel(24)) >>> 0;
}

/** The mask with 255 where nothing is drawn. */
function drawnMask(result: Segmented, labels: LabelSet, look: Look): Uint8Array {
  const { mask, bits, confidence } = result;
  const { hidden, dropped, threshold } = look;
  if (bits) return topmostOf(bits, mask, shownClasses(result, labels, look));
  const ids = Uint8Array.from({ length: 256 }, (_, id) =>
    isDrawn(id, labels, hidden) ? id : NOTHING,
  );
  const least = Math.round(255 * threshold);
  const out = new Uint8Array(mask.length);
  for (let i = 0; i < mask.length; i++) {
    const isOut = dropped?.[i] || (least && confidence && confidence[i]! < least);
    out[i] = isOut ? NOTHING : ids[mask[i]!]!;
  }
  return out;
}

/** The pixels of objects that touch something else; 255 elsewhere. */
function edgesOf(drawn: Uint8Array, { width }: Size): Uint8Array {
  const edges = new Uint8Array(drawn.length).fill(NOTHING);
  for (let i = 0; i < drawn.length; i++) {
    const id = drawn[i]!;
    if (id === NOTHING) continue;
    const x = i % width;
    const isEdge =
      (x > 0 && drawn[i - 1] !== id) ||
      (x + 1 < width && drawn[i + 1] !== id) ||
      (i >= width && drawn[i - width] !== id) ||
      (i + width < drawn.length && drawn[i + width] !== id);
    if (isEdge) edges[i] = id;
  }
  return edges;
}

/** One RGBA pixel per class id, in the order in which memory holds them. */
function table(colour: (id: number) => number[]): Uint32Array {
  const bytes = Uint8Array.from({ length: 256 }, (_, id) => id);
  return new Uint32Array(Uint8Array.from([...bytes].flatMap(colour)).buffer);
}

const OPAQUE = table((id) => [0, 0, 0, id === NOTHING ? 0 : 255]);
const DARK = table((id) => [0, 0, 0, id === NOTHING ? 0 : 200]);
const RAMP_TABLE = table((value) => {
  const place = (value / 255) * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  const mix = (c: number) => RAMP[low]![c]! + (place - low) * (RAMP[low + 1]![c]! - RAMP[low]![c]!);
  return [mix(0), mix(1), mix(2), 255];
});
