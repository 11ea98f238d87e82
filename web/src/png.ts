/**
 * A mask as a palette PNG: pixel value = class id, colours = the label set's.
 *
 * Canvases write true colours only, which would lose the ids.
 * Source: the PNG specification (https://www.w3.org/TR/png-3/), sections 5 and 11.
 */

import type { Size } from './geometry';
import { vocColours, type Colour } from './labels';

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** Return class ids as the bytes of a PNG file; ids without a colour get the VOC map's. */
export async function palettePng(mask: Uint8Array, size: Size, colours: Colour[]): Promise<Blob> {
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, size.width);
  header.setUint32(4, size.height);
  header.setUint8(8, 8); // bits
  header.setUint8(9, 3); // palette
  const rows = new Uint8Array((size.width + 1) * size.height); // each begins with 0: no filter
  for (let y = 0; y < size.height; y++) {
    rows.set(mask.subarray(y * size.width, (y + 1) * size.width), y * (size.width + 1) + 1);
  }
  const palette = vocColours(256).map((colour, id) => colours[id] ?? colour);
  const parts = [
    new Uint8Array(SIGNATURE),
    chunk('IHDR', new Uint8Array(header.buffer)),
    chunk('PLTE', Uint8Array.from(palette.flat())),
    chunk('IDAT', await deflate(rows)),
    chunk('IEND', new Uint8Array()),
  ];
  return new Blob(parts, { type: 'image/png' });
}

/** Compress into the format of zlib. */
export async function deflate(data: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([data]).stream().pipeThrough(new CompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function chunk(kind: string, content: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12 + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(kind), 4);
  bytes.set(content, 8);
  view.setUint32(8 + content.length, crc32(bytes.subarray(4, 8 + content.length)));
  return bytes;
}

export function crc32(data: Uint8Array): number {
  let crc = ~0;
  for (const byte of data) crc = TABLE[(crc ^ byte) & 255]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

const TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? 0xedb88320 ^ (crc >>> 1) : crc >>> 1;
  return crc;
});
