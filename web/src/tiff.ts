/**
 * Masks of classes that overlap as one TIFF: a page per class, 0 and 1, as `deeplab segment` writes.
 *
 * Source: TIFF revision 6.0 (1992), section 2; Deflate is Adobe's compression 8.
 */

import type { Size } from './geometry';
import { hasClass, type Bits } from './overlapping';
import { deflate } from './png';

const SHORT = 3;
const LONG = 4;
const BYTES_PER_TAG = 12;

/** Return the bytes of the file. */
export async function masksTiff(
  bits: Bits,
  { height, width }: Size,
  classes: number,
): Promise<Blob> {
  const header = new DataView(new ArrayBuffer(8));
  header.setUint16(0, 0x4949); // little-endian
  header.setUint16(2, 42, true);
  const parts: BlobPart[] = [header.buffer];
  let end = 8;
  let link = { view: header, at: 4 }; // where the place of the next page stands
  for (let id = 0; id < classes; id++) {
    const plane = Uint8Array.from({ length: bits.pixels }, (_, at) =>
      Number(hasClass(bits, id, at)),
    );
    const packed = await deflate(plane);
    const padding = packed.length % 2; // pages begin at even places
    const tags = [
      [256, LONG, width],
      [257, LONG, height],
      [258, SHORT, 8], // bits
      [259, SHORT, 8], // Deflate
      [262, SHORT, 1], // black is 0
      [273, LONG, end],
      [277, SHORT, 1], // channels
      [278, LONG, height], // rows of the one strip
      [279, LONG, packed.length],
    ] as const;
    const page = new DataView(new ArrayBuffer(2 + BYTES_PER_TAG * tags.length + 4));
    page.setUint16(0, tags.length, true);
    tags.forEach(([tag, type, value], i) => {
      const at = 2 + BYTES_PER_TAG * i;
      page.setUint16(at, tag, true);
      page.setUint16(at + 2, type, true);
      page.setUint32(at + 4, 1, true);
      if (type === SHORT) page.setUint16(at + 8, value, true);
      else page.setUint32(at + 8, value, true);
    });
    end += packed.length + padding;
    link.view.setUint32(link.at, end, true);
    link = { view: page, at: page.byteLength - 4 };
    end += page.byteLength;
    parts.push(packed, new Uint8Array(padding), page.buffer);
  }
  return new Blob(parts, { type: 'image/tiff' });
}
