/** Loading large files by a worker: how far it is, and how long it will take. */

import type { Wanted } from './read';

/** Bytes so far and in all, of all files that are being loaded; as they come over the line. */
export type OnProgress = (loaded: number, total: number) => void;

export interface LoadQuestion extends Wanted {
  kind: 'bytes' | 'module';
  id: number;
}

export interface LoadedBytes {
  bytes: Uint8Array<ArrayBuffer>;
  /** null where the browser computes none: neither https nor localhost. */
  sha256: string | null;
}

/** How far a file is, or the file, or why not. */
export type LoadAnswer = { id: number } & (
  | { loaded: number; total: number }
  | LoadedBytes
  | { module: WebAssembly.Module }
  | { error: string; isCompileError: boolean }
);

interface Waiting {
  onRead: OnProgress;
  resolve: (result: never) => void;
  reject: (error: Error) => void;
}

const waiting = new Map<number, Waiting>();
let worker: Worker | undefined;
let lastId = 0;

export class Loading {
  private readonly files: { loaded: number; total: number }[] = [];

  constructor(private readonly onProgress: OnProgress) {}

  /**
   * Return the bytes at an address, and their hash; `total` is how many they will be.
   *
   * Throws an Error in plain words, which name what is being loaded by `title`.
   */
  async bytes(address: string, title: string, total: number): Promise<LoadedBytes> {
    return this.load<LoadedBytes>('bytes', { address, title, total });
  }

  /** Return the WebAssembly at an address, compiled; as `bytes`, and a CompileError. */
  async module(address: string, title: string, total: number): Promise<WebAssembly.Module> {
    const wanted = { address, title, total };
    return (await this.load<{ module: WebAssembly.Module }>('module', wanted)).module;
  }

  private async load<Result>(kind: LoadQuestion['kind'], wanted: Wanted) {
    const file = { loaded: 0, total: wanted.total };
    this.files.push(file);
    const result = await ask<Result>({ ...wanted, kind }, (loaded, total) => {
      Object.assign(file, { loaded, total });
      this.tell();
    });
    file.loaded = file.total;
    this.tell();
    return result;
  }

  private tell(): void {
    const sum = (key: 'loaded' | 'total') => this.files.reduce((all, file) => all + file[key], 0);
    this.onProgress(sum('loaded'), Math.max(sum('loaded'), sum('total')));
  }
}

function ask<Result>(
  question: Omit<LoadQuestion, 'id'>,
  onRead: Waiting['onRead'],
): Promise<Result> {
  worker ??= start();
  const id = ++lastId;
  // Absolute: a worker's addresses are relative to its own script.
  const address = new URL(question.address, document.baseURI).href;
  return new Promise<Result>((resolve, reject) => {
    waiting.set(id, { onRead, resolve: resolve as Waiting['resolve'], reject });
    worker!.postMessage({ ...question, address, id });
  });
}

function start(): Worker {
  const started = new Worker(new URL('./load.worker.ts', import.meta.url));
  started.onmessage = ({ data }: MessageEvent<LoadAnswer>) => {
    const { onRead, resolve, reject } = waiting.get(data.id)!;
    if ('loaded' in data) return onRead(data.loaded, data.total);
    waiting.delete(data.id);
    if (!('error' in data)) return resolve(data as never);
    const Kind = data.isCompileError ? WebAssembly.CompileError : Error;
    reject(new Kind(data.error));
  };
  started.onerror = (event) => {
    worker = undefined;
    for (const { reject } of waiting.values()) reject(new Error(event.message || NOT_STARTED));
    waiting.clear();
  };
  return started;
}

export const NOT_STARTED =
  'A file of this page is no longer where it was: its host has a newer version. Reload the page.';

/** Words for a progress: "3.1 of 11.9 MB, 20 s left". */
export function progressWords(loaded: number, total: number, elapsedMs: number): string {
  const mega = (bytes: number) => (bytes / 1e6).toFixed(1);
  const text = `${mega(loaded)} of ${mega(total)} MB`;
  if (elapsedMs < 1500 || !loaded) return text;
  const left = Math.ceil(((total - loaded) * elapsedMs) / loaded / 1000);
  return left ? `${text}, ${left} s left` : text;
}
