/** LiteRT's WebAssembly: which of its builds this browser takes, loaded before it is needed. */

import { supportsFeature } from '@litertjs/core';

import type { Loading } from './load';

/** Where the build put the files, and their sizes in bytes. */
declare const RUNTIME: { folder: string; bytes: Record<string, number> };

export const wasmFolder = (): string => new URL(RUNTIME.folder, document.baseURI).href;

const loaded = new Set<string>();

/**
 * Load what the engine will load, so that its progress is seen; the service worker then has it.
 *
 * Without a service worker it would be loaded twice, so it is left to the engine there.
 */
export async function loadRuntime(threads: number, loading: Loading): Promise<void> {
  if (!navigator.serviceWorker?.controller) return;
  const build =
    threads > 1
      ? 'threaded_internal'
      : (await supportsFeature('relaxedSimd'))
        ? 'internal'
        : 'compat_internal';
  const file = `litert_wasm_${build}.wasm`;
  if (loaded.has(file)) return;
  await loading.prepare(RUNTIME.folder + file, 'The runtime of the networks', RUNTIME.bytes[file]!);
  loaded.add(file);
}
