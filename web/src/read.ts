/** Reading large files, in the worker that loads: how far it is, and words where it fails. */

/** Bytes so far and in all: as they come over the line, where that is known. */
export type OnRead = (loaded: number, total: number) => void;

/** A file that is to be loaded; what goes wrong is told under its title. */
export interface Wanted {
  address: string;
  title: string;
  /** How many bytes it will be, unpacked. */
  total: number;
}

/**
 * Return the bytes at an address.
 *
 * Throws an Error in plain words.
 */
export async function readBytes(wanted: Wanted, onRead: OnRead): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const size = await readParts(await ask(wanted), wanted, onRead, (part) => parts.push(part));
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/**
 * Return the WebAssembly at an address, compiled while it comes in.
 *
 * Throws an Error in plain words; a CompileError where this browser lacks what it needs.
 */
export async function readModule(wanted: Wanted, onRead: OnRead): Promise<WebAssembly.Module> {
  const answer = await ask(wanted);
  const type = answer.headers.get('Content-Type')?.replace(/;.*/, '').trim();
  // Hosts that do not know the ending send it as bytes, which browsers do not compile on the way.
  if (type !== 'application/wasm') {
    const bytes: Uint8Array<ArrayBuffer>[] = [];
    await readParts(answer, wanted, onRead, (part) => bytes.push(part));
    return WebAssembly.compile(await new Blob(bytes).arrayBuffer());
  }
  const counted = readParts(answer.clone(), wanted, onRead);
  const [module] = await Promise.all([WebAssembly.compileStreaming(answer), counted]);
  return module;
}

async function ask({ address, title }: Wanted): Promise<Response> {
  const answer = await fetch(address).catch(() => {
    throw new Error(
      `${title} is not on this device yet, and its host cannot be reached. What was opened once ` +
        'works without a connection; for the rest, connect and try again.',
    );
  });
  if (!answer.ok) throw new Error(`${title} could not be loaded (${answer.status}).`);
  return answer;
}

async function readParts(
  answer: Response,
  { title, total }: Wanted,
  onRead: OnRead,
  onPart: (part: Uint8Array<ArrayBuffer>) => void = () => {},
): Promise<number> {
  let loaded = 0;
  // Hosts send some files packed; how long that takes is a matter of their packed size.
  const packed = Number(
    answer.headers.get('Content-Encoding') && answer.headers.get('Content-Length'),
  );
  const part = packed && total ? packed / total : 1;
  try {
    const reader = answer.body!.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return loaded;
      onPart(value);
      loaded += value.length;
      onRead(loaded * part, Math.max(loaded, total) * part);
    }
  } catch {
    throw new Error(`${title}: the connection broke while it was loaded. Try again.`);
  }
}
