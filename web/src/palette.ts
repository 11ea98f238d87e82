/**
 * The colours in which classes are shown: the label set's, made to be seen over a photo.
 *
 * Official palettes hold colours that are nearly black, or grey as a street is. On the screen these
 * get another lightness or a hue of their own; saved masks keep the official ones.
 */

import type { Colour, LabelSet } from './labels';

/** Lightness, and the distance from grey, in Oklab (0..1). */
const LIGHTNESS: [number, number] = [0.5, 0.86];
const LEAST_CHROMA = 0.09;
/** Colours nearer than this are taken for the same. */
const LEAST_DISTANCE = 0.09;
/** Hues that are tried where a class has none: the golden angle apart. */
const HUE_STEP = 2.399963;

type Lab = [lightness: number, a: number, b: number];

/** Return one colour per class; the background keeps its own, for it is not drawn. */
export function displayColours({ colours, background }: LabelSet): Colour[] {
  const taken: Lab[] = [];
  return colours.map((colour, id) => {
    if (id === background) return colour;
    const own = toLab(colour);
    const chroma = Math.hypot(own[1], own[2]);
    const isSeen = own[0] >= LIGHTNESS[0] && own[0] <= LIGHTNESS[1] && chroma >= LEAST_CHROMA;
    const isFree = nearest(own, taken) >= LEAST_DISTANCE;
    const chosen = isSeen && isFree ? own : choose(own, chroma, taken, id);
    taken.push(chosen);
    return isSeen && isFree ? colour : toRgb(chosen);
  });
}

/** The candidate farthest from what is taken; of about equal ones that nearest to the class's own. */
function choose(own: Lab, chroma: number, taken: Lab[], id: number): Lab {
  const hue = chroma > 0.03 ? Math.atan2(own[2], own[1]) : id * HUE_STEP;
  const candidates: Lab[] = [];
  for (let turn = 0; turn < 12; turn++) {
    for (const lightness of [clamp(own[0]), 0.55, 0.68, 0.8]) {
      for (const c of [Math.max(chroma, 0.14), 0.1, 0.18]) {
        const angle = hue + turn * (Math.PI / 6);
        const lab: Lab = [lightness, c * Math.cos(angle), c * Math.sin(angle)];
        if (isInside(lab)) candidates.push(lab);
      }
    }
  }
  const enough = candidates.find((lab) => nearest(lab, taken) >= LEAST_DISTANCE);
  if (enough) return enough;
  return candidates.reduce((a, b) => (nearest(b, taken) > nearest(a, taken) ? b : a));
}

function clamp(lightness: number): number {
  return Math.min(Math.max(lightness, LIGHTNESS[0] + 0.05), LIGHTNESS[1] - 0.06);
}

function nearest(lab: Lab, others: Lab[]): number {
  return Math.min(1, ...others.map((o) => Math.hypot(lab[0] - o[0], lab[1] - o[1], lab[2] - o[2])));
}

/** Source: Björn Ottosson, "A perceptual color space for image processing" (Oklab). */
export function toLab(colour: Colour): Lab {
  const [r, g, b] = colour.map((byte) => {
    const value = byte / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  }) as Colour;
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function toLinear([lightness, a, b]: Lab): Colour {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
}

function isInside(lab: Lab): boolean {
  return toLinear(lab).every((value) => value >= -0.002 && value <= 1.002);
}

function toRgb(lab: Lab): Colour {
  return toLinear(lab).map((linear) => {
    const value = Math.min(Math.max(linear, 0), 1);
    const encoded = value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055;
    return Math.round(255 * encoded);
  }) as Colour;
}
