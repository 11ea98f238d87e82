/** Loading large files: how far it is, how long it will take, and words where it fails. */

/** Bytes so far and in all, of all files that are being loaded. */
export type OnProgress = (loaded: number, total: number) => void;

/** Progress is told this often, so that telling it costs nothing. */
const EVERY_MS = 100;

export class Loading {
  private readonly files: { loaded: number; total: number }[] = [];
  private toldAt = 0;

  constructor(private readonly onProgress: OnProgress) {}

  /**
   * Return the bytes at an address; `total` is how many they will be.
   *
   * Throws an Error in plain words, which name what is being loaded by `title`.
   */
  async fetch(address: string, title: string, total: number): Promise<Uint8Array<ArrayBuffer>> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    const size = await this.read(address, title, total, (part) => parts.push(part));
    const bytes = new Uint8Array(size);
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  }

  /** Load a file that is only to be kept by the browser, for somebody else to read. */
  async prepare(address: string, title: string, total: number): Promise<void> {
    await this.read(address, title, total, () => {});
  }

  private async read(
    address: string,
    title: string,
    total: number,
    onPart: (part: Uint8Array<ArrayBuffer>) => void,
  ): Promise<number> {
    const file = { loaded: 0, total };
    this.files.push(file);
    const response = await fetch(address).catch(() => {
      throw new Error(
        `${title} is not on this device yet, and its host cannot be reached. What was opened once ` +
          'works without a connection; for the rest, connect and try again.',
      );
    });
    if (!response.ok) throw new Error(`${title} could not be loaded (${response.status}).`);
    try {
      const reader = response.body!.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        onPart(value);
        file.loaded += value.length;
        this.tell();
      }
    } catch {
      throw new Error(`${title}: the connection broke while it was loaded. Try again.`);
    }
    file.total = file.loaded;
    this.tell(true);
    return file.loaded;
  }

  private tell(isDone = false): void {
    const now = performance.now();
    if (!isDone && now - this.toldAt < EVERY_MS) return;
    this.toldAt = now;
    const sum = (key: 'loaded' | 'total') => this.files.reduce((all, file) => all + file[key], 0);
    this.onProgress(sum('loaded'), Math.max(sum('loaded'), sum('total')));
  }
}

/** Words for a progress: "3.1 of 11.9 MB, 20 s left". */
export function progressWords(loaded: number, total: number, elapsedMs: number): string {
  const mega = (bytes: number) => (bytes / 1e6).toFixed(1);
  const text = `${mega(loaded)} of ${mega(total)} MB`;
  if (elapsedMs < 1500 || !loaded) return text;
  const left = Math.ceil(((total - loaded) * elapsedMs) / loaded / 1000);
  return left ? `${text}, ${left} s left` : text;
}
