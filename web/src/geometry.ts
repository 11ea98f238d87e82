/** Where a photo lies inside a network's frame, both ways. The same as Geometry in `images.py`. */

export interface Size {
  height: number;
  width: number;
}

/** How a photo of another shape meets the frame: its shape is kept, or all of the frame filled. */
export type Fit = 'letterbox' | 'stretch';

/** The part of the frame that a photo fills; letterboxed, it lies in the top left corner. */
export function placeInFrame(photo: Size, frame: Size, fit: Fit): Size {
  if (fit === 'stretch') return frame;
  const scale = Math.min(frame.height / photo.height, frame.width / photo.width);
  const scaled = (side: number, most: number) =>
    Math.min(most, Math.max(1, roundHalfEven(side * scale)));
  return {
    height: scaled(photo.height, frame.height),
    width: scaled(photo.width, frame.width),
  };
}

/** Round to the nearest whole number, halves to the even one, as Python and numpy do. */
export function roundHalfEven(value: number): number {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
