/** Writing a zip archive whose files are stored as they are: pictures are packed already. */

import { crc32 } from './png';

/** Return the files as one archive. Source: PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.12, 4.3.16. */
export async function zip(files: Map<string, Blob>): Promise<Blob> {
  const parts: BlobPart[] = [];
  const directory: Uint8Array<ArrayBuffer>[] = [];
  let at = 0;
  for (const [name, blob] of files) {
    const path = new TextEncoder().encode(name);
    const checksum = crc32(new Uint8Array(await blob.arrayBuffer()));
    const common = new DataView(new ArrayBuffer(26));
    common.setUint16(0, 20, true); // the version that is needed
    common.setUint16(2, 0x0800, true); // the name is UTF-8
    common.setUint16(8, 0x21, true); // 1 January 1980: the page does not tell when it ran
    common.setUint32(10, checksum, true);
    common.setUint32(14, blob.size, true);
    common.setUint32(18, blob.size, true);
    common.setUint16(22, path.length, true);
    parts.push(signature(0x04034b50), common, path, blob);
    const rest = new DataView(new ArrayBuffer(14));
    rest.setUint32(10, at, true);
    const version = Uint8Array.of(20, 0);
    directory.push(
      signature(0x02014b50),
      version,
      new Uint8Array(common.buffer),
      new Uint8Array(rest.buffer),
      path,
    );
    at += 30 + path.length + blob.size;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = new DataView(new ArrayBuffer(18));
  end.setUint16(4, files.size, true);
  end.setUint16(6, files.size, true);
  end.setUint32(8, size, true);
  end.setUint32(12, at, true);
  return new Blob([...parts, ...directory, signature(0x06054b50), end], {
    type: 'application/zip',
  });
}

function signature(value: number): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, value, true);
  return new Uint8Array(view.buffer);
}
