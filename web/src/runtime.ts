/** LiteRT's WebAssembly: which of its builds this browser takes, compiled once for all engines. */

import { supportsFeature } from '@litertjs/core';

import type { Loading } from './load';

/** Where the build put the files, and their sizes in bytes. */
declare const RUNTIME: { folder: string; bytes: Record<string, number> };

export const wasmFolder = (): string => new URL(RUNTIME.folder, document.baseURI).href;

const compiled = new Map<string, Promise<WebAssembly.Module>>();

/**
 * Return the build for so many threads, compiled while it is loaded; null where this browser cannot
 * compile it: the engine then tries by itself, and says what is missing.
 */
export async function loadRuntime(
  threads: number,
  loading: Loading,
): Promise<WebAssembly.Module | null> {
  const build =
    threads > 1
      ? 'threaded_internal'
      : (await supportsFeature('relaxedSimd'))
        ? 'internal'
        : 'compat_internal';
  const file = `litert_wasm_${build}.wasm`;
  if (!compiled.has(file)) {
    const address = RUNTIME.folder + file;
    const title = 'The runtime of the networks';
    compiled.set(file, loading.module(address, title, RUNTIME.bytes[file]!));
    // The script that goes with it: the engine asks for it later, and then it is there.
    void loading.bytes(address.replace(/wasm$/, 'js'), title, 0).catch(() => {});
  }
  try {
    return await compiled.get(file)!;
  } catch (error) {
    compiled.delete(file);
    if (error instanceof WebAssembly.CompileError) return null;
    throw error;
  }
}
