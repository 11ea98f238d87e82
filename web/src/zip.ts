/** Reading the files that are packed behind a model: a zip archive at the end of the file. */

const END = 0x06054b50; // "PK\5\6", the end of the central directory
const ENTRY = 0x02014b50; // "PK\1\2"
const STORED = 0;
const DEFLATED = 8;

/** Return the packed files by name; none where nothing is packed. */
export async function unzip(data: Uint8Array): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const end = findEnd(view);
  if (end < 0) return files;
  const count = view.getUint16(end + 10, true);
  const size = view.getUint32(end + 12, true);
  // Offsets count from the archive's own beginning in some files and from the model's in others;
  // the directory's true place, just before its end record, tells which.
  const shift = end - size - view.getUint32(end + 16, true);
  let at = end - size;
  for (let i = 0; i < count && view.getUint32(at, true) === ENTRY; i++) {
    const nameLength = view.getUint16(at + 28, true);
    const name = new TextDecoder().decode(data.subarray(at + 46, at + 46 + nameLength));
    const method = view.getUint16(at + 10, true);
    const packed = view.getUint32(at + 20, true);
    const local = view.getUint32(at + 42, true) + shift;
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const content = data.slice(start, start + packed);
    if (method === STORED) files.set(name, content);
    if (method === DEFLATED) files.set(name, await inflate(content));
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return files;
}

function findEnd(view: DataView): number {
  const last = view.byteLength - 22;
  for (let at = last; at >= Math.max(0, last - 0xffff); at--) {
    if (view.getUint32(at, true) === END) return at;
  }
  return -1;
}

async function inflate(packed: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
