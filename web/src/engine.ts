/** The page's side of the worker that runs networks. */

import type { ClassShares } from './class_shares';
import type { Size } from './geometry';
import type { LabelSet } from './labels';
import { NOT_STARTED } from './load';
import type { EngineOptions } from './network';
import type { Bits } from './overlapping';
import type { Hints } from './understand';

/** A model as bytes, with what is known about it beside the file. */
export interface ModelData {
  name: string;
  data: Uint8Array;
  hints: Hints;
}

/** What the page must know of a network that is ready. */
export interface Loaded extends Size {
  labels: LabelSet | null;
  numClasses: number | null;
  /** What neither the file nor the page's host says, in words. */
  assumed: string[];
  /** Whether it can tell how sure it is. */
  hasConfidence: boolean;
}

/** A picture and its mask: one class id per pixel, row by row; of classes that overlap the topmost. */
export interface Segmented extends Size {
  picture: ImageBitmap;
  mask: Uint8Array<ArrayBuffer>;
  /** All classes of every pixel where they overlap; null where they exclude each other. */
  bits: Bits | null;
  /** The probability of each pixel's class, 255 for certain; null where it was not asked for. */
  confidence: Uint8Array<ArrayBuffer> | null;
  /** Probabilities on the grid of soft edges; null where they were not asked for. */
  shares: ClassShares | null;
  /** Pixels per class id. */
  counts: Uint32Array;
  /** Milliseconds: reading and resizing the picture, the network, and its mask. */
  ms: { fit: number; network: number; mask: number };
}

export interface LoadRequest extends ModelData {
  kind: 'load';
  id: number;
  known: LabelSet[];
  options: EngineOptions;
}

export interface SegmentOptions {
  /** Average over time, see `smooth.ts`. */
  smooth: boolean;
  /** The first picture of its source: there is no past. */
  fresh: boolean;
  /** Tell how sure the network is of each pixel. */
  confidence: boolean;
  /** Tell the probabilities of all classes on a coarse grid, for soft edges. */
  shares: boolean;
}

export interface SegmentRequest extends SegmentOptions {
  kind: 'segment';
  id: number;
  picture: ImageBitmap;
}

export type Request = LoadRequest | SegmentRequest;
export type Answer = { id: number; result?: Loaded | Segmented; error?: string };

interface Waiting {
  resolve: (result: never) => void;
  reject: (error: Error) => void;
}

export class Engine {
  private readonly worker = new Worker(new URL('./engine.worker.ts', import.meta.url));
  private readonly waiting = new Map<number, Waiting>();
  private lastId = 0;

  private constructor() {
    this.worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const { resolve, reject } = this.waiting.get(data.id)!;
      this.waiting.delete(data.id);
      if (data.error === undefined) resolve(data.result as never);
      else reject(new Error(data.error));
    };
    this.worker.onerror = (event) => this.fail(event.message || NOT_STARTED);
  }

  /** Start a worker and load a model into it. Throws an Error in plain words. */
  static async open(
    model: ModelData,
    known: LabelSet[],
    options: EngineOptions,
  ): Promise<{ engine: Engine; loaded: Loaded }> {
    const engine = new Engine();
    try {
      const loaded = await engine.ask<Loaded>({ kind: 'load', ...model, known, options });
      return { engine, loaded };
    } catch (error) {
      engine.close();
      throw error;
    }
  }

  /** Segment one picture; it moves to the worker, and comes back with the result. */
  segment(picture: ImageBitmap, options: SegmentOptions): Promise<Segmented> {
    return this.ask<Segmented>({ kind: 'segment', picture, ...options }, [picture]);
  }

  close(): void {
    this.worker.terminate();
    this.fail('the network was changed');
  }

  private ask<Result>(
    question: Omit<LoadRequest, 'id'> | Omit<SegmentRequest, 'id'>,
    transfer: Transferable[] = [],
  ): Promise<Result> {
    const id = ++this.lastId;
    return new Promise<Result>((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as Waiting['resolve'], reject });
      this.worker.postMessage({ ...question, id }, transfer);
    });
  }

  private fail(reason: string): void {
    for (const { reject } of this.waiting.values()) reject(new Error(reason));
    this.waiting.clear();
  }
}
