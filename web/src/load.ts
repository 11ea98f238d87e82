/** Loading large files: how far it is, how long it will take, and words where it fails. */

/** Bytes so far and in all, of all files that are being loaded. */
export type OnProgress = (loaded: number, total: number) => void;

export class Loading {
  private readonly files: { loaded: number; total: number }[] = [];

  constructor(private readonly onProgress: OnProgress) {}

  /**
   * Return the bytes at an address; `total` is how many they will be.
   *
   * Throws an Error in plain words, which name what is being loaded by `title`.
   */
  async fetch(address: string, title: string, total: number): Promise<Uint8Array<ArrayBuffer>> {
    const file = { loaded: 0, total };
    this.files.push(file);
    const response = await fetch(address).catch(() => {
      throw new Error(
        `${title} is not on this device yet, and its host cannot be reached. What was opened once ` +
          'works without a connection; for the rest, connect and try again.',
      );
    });
    if (!response.ok) throw new Error(`${title} could not be loaded (${response.status}).`);
    const parts: Uint8Array<ArrayBuffer>[] = [];
    try {
      const reader = response.body!.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        parts.push(value);
        file.loaded += value.length;
        this.tell();
      }
    } catch {
      throw new Error(`${title}: the connection broke while it was loaded. Try again.`);
    }
    file.total = file.loaded;
    const bytes = new Uint8Array(file.loaded);
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  }

  private tell(): void {
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
