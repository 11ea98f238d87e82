/** Open a network on the processor that suits its weights. */

import { Engine, type Loaded, type ModelData } from './engine';
import type { LabelSet } from './labels';
import type { Loading } from './load';
import { loadRuntime, wasmFolder } from './runtime';
import { TfliteFile } from './tflite';

export interface Wish {
  /** Try the graphics processor first. */
  graphics: boolean;
  threads: number;
}

/** A network that is open, and what there is to say of it. */
export interface Opened {
  model: ModelData;
  engine: Engine;
  loaded: Loaded;
  notes: string[];
  /** How many threads it takes, where that is not as wished for. */
  threads: number | null;
}

/**
 * Open a network; `load` gives its file, or the one for graphics processors.
 *
 * Integer networks go to the CPU, whatever is wished for. Throws an Error in plain words.
 */
export async function openNetwork(
  load: (graphics: boolean) => Promise<ModelData>,
  wish: Wish,
  known: LabelSet[],
  loading: Loading,
): Promise<Opened> {
  const notes: string[] = [];
  const start = async (model: ModelData, processor: 'gpu' | 'cpu', threads: number) => {
    const module = await loadRuntime(threads, loading);
    const options = { processor, threads, wasmFolder: wasmFolder(), module };
    return { model, notes, threads: null, ...(await Engine.open(model, known, options)) };
  };
  if (wish.graphics) {
    const [model] = await Promise.all([load(true), loadRuntime(1, loading)]);
    if (new TfliteFile(model.name, model.data).isInteger) {
      notes.push('Its weights are integers, which the CPU is for.');
    } else {
      try {
        const opened = await start(model, 'gpu', 1);
        notes.push('It runs on the graphics processor.');
        return opened;
      } catch (error) {
        // What is no model at all is refused once more below, in the same words.
        notes.push((error as Error).message);
      }
    }
  }
  const { threads } = wish;
  const [model] = await Promise.all([load(false), loadRuntime(threads, loading)]);
  try {
    const opened = await start(model, 'cpu', threads);
    notes.push(threads > 1 ? `It runs on the CPU, ${threads} threads.` : 'It runs on the CPU.');
    if (!crossOriginIsolated) {
      notes.push('One thread: more need headers that this page was served without.');
    }
    return opened;
  } catch (error) {
    // Threads need instructions that not every browser has.
    if (threads === 1 || !/threads|SIMD/i.test((error as Error).message)) throw error;
    notes.push('It runs on the CPU. One thread: this browser lacks what more of them need.');
    return { ...(await start(model, 'cpu', 1)), threads: 1 };
  }
}
