/** Whether this browser has WebGPU, and whether a graphics processor is behind it. */

interface Gpu {
  requestAdapter: () => Promise<{ info?: { isFallbackAdapter?: boolean } } | null>;
}

/** Return "real", "imitated" (by the CPU), or null where there is none. */
export async function offeredGpu(): Promise<'real' | 'imitated' | null> {
  const gpu = (navigator as { gpu?: Gpu }).gpu;
  const adapter = await gpu?.requestAdapter().catch(() => null);
  if (!adapter) return null;
  return adapter.info?.isFallbackAdapter ? 'imitated' : 'real';
}
