/**
 * Understand the graph of a DeepLab `.tflite`: what goes in, what comes out, where to stop.
 *
 * Published files end in a bilinear resize to the frame, often followed by an argmax. Both decide
 * nothing: `upsample.ts` goes from the small grid of logits straight to the photo's size. So the
 * graph is cut in front of them. The same decisions as in `runtimes/tflite_network.py`.
 */

import type { Fit } from './geometry';
import type { LabelSet } from './labels';
import { readMetadata } from './metadata';
import { TfliteFile, type Tensor } from './tflite';

export type Triple = [number, number, number];

/** What the page knows about a model beside its file; what the file says goes first. */
export interface Hints {
  labels?: LabelSet;
  mean?: Triple;
  std?: Triple;
}

/** What must be known to run a DeepLab file. */
export interface Network {
  name: string;
  /** The file for the engine, without the steps behind the tensor to fetch. */
  content: Uint8Array;
  /** The network's frame, in pixels. */
  height: number;
  width: number;
  /** Per channel, in units of 0..255; the network sees `(value - mean) / std`. */
  mean: Triple;
  std: Triple;
  fit: Fit;
  input: Tensor;
  fetched: Tensor;
  /** "label map": the argmax of what is fetched, or what is fetched itself, enlarged by nearest. */
  output: 'logits' | 'label map';
  alignCorners: boolean;
  /** null where only a label map of unknown range comes out. */
  numClasses: number | null;
  labels: LabelSet | null;
}

const LOGIT_TYPES = ['FLOAT32', 'UINT8', 'INT8'];
const MAP_TYPES = ['INT64', 'INT32', 'UINT8', 'INT8'];
const USUAL: Triple = [127.5, 127.5, 127.5];

/** Find out how a DeepLab file is run. Throws an Error in plain words where it is none. */
export async function understand(
  file: TfliteFile,
  hints: Hints = {},
  known: LabelSet[] = [],
): Promise<Network> {
  const input = findInput(file);
  const [, height, width] = input.shape as Triple;
  const { fetched, output, alignCorners, numClasses } = findOutput(file);
  const [, h, w] = fetched.shape as Triple;
  const metadata = await readMetadata(file, known);
  const labels = metadata?.labels ?? hints.labels ?? null;
  checkLabels(file.name, labels, numClasses);
  const stated = metadata?.mean.length && metadata.std.length ? metadata : fromType(input);
  return {
    name: file.name,
    content: file.cut(fetched.index),
    height,
    width,
    mean: three(stated?.mean ?? hints.mean ?? USUAL),
    std: three(stated?.std ?? hints.std ?? USUAL),
    fit: metadata?.fit ?? 'letterbox',
    input,
    fetched,
    output,
    alignCorners:
      alignCorners ??
      metadata?.alignCorners ??
      // Where nothing says it: the original's frames are k * output stride + 1.
      (isStride(height - 1, h - 1) && isStride(width - 1, w - 1)),
    numClasses,
    labels,
  };
}

/** Throws where a network's labels and its classes are not equally many. */
export function checkLabels(name: string, labels: LabelSet | null, classes: number | null): void {
  if (labels && classes !== null && labels.names.length !== classes) {
    throw new Error(
      `There are ${labels.names.length} label names, but ${name} tells ${classes} classes apart.`,
    );
  }
}

function findInput(file: TfliteFile): Tensor {
  const input = file.tensor(file.inputs[0]!);
  const { shape, type } = input;
  if (file.inputs.length !== 1 || shape.length !== 4 || shape[0] !== 1 || shape[3] !== 3) {
    const got = file.inputs.map((i) => `[${file.tensor(i).shape.join(', ')}]`).join(', ');
    const hint = shape[1] === 3 ? ' (channels come first: export it channel-last)' : '';
    throw new Error(
      `${file.name} is not a DeepLab: its input is ${got}${hint}, expected one RGB picture ` +
        '[1, height, width, 3].',
    );
  }
  const integer = (type === 'UINT8' || type === 'INT8') && input.quantization;
  if (type !== 'FLOAT32' && !integer) {
    throw new Error(
      `${file.name}: its input has type ${type}, expected FLOAT32, or UINT8 or INT8 with scale ` +
        'and zero point.',
    );
  }
  return input;
}

type Answer = Pick<Network, 'fetched' | 'output' | 'numClasses'> & {
  alignCorners: boolean | null;
};

function findOutput(file: TfliteFile): Answer {
  const last = file.tensor(file.outputs[0]!);
  const { shape, type } = last;
  const isMap = MAP_TYPES.includes(type) && (shape.length === 3 || shape[3] === 1);
  const isLogits = LOGIT_TYPES.includes(type) && shape.length === 4 && shape[3]! <= 256;
  if (file.outputs.length !== 1 || shape[0] !== 1 || !(isMap || isLogits)) {
    const got = file.outputs.map((i) => `[${file.tensor(i).shape.join(', ')}]`).join(', ');
    throw new Error(
      `${file.name} is not a DeepLab: its output is ${got}, expected logits ` +
        '[1, h, w, classes] or a label map [1, h, w].',
    );
  }
  const logits = isMap ? beforeArgmax(file, last) : last;
  if (!logits) return { fetched: last, output: 'label map', alignCorners: null, numClasses: null };
  const numClasses = logits.shape[3]!;
  const { grid, alignCorners } = beforeResize(file, logits);
  if (grid) return { fetched: grid, output: 'logits', alignCorners, numClasses };
  // The engine has no 64-bit results, so an argmax is computed here, from what it is fed with.
  const output = isMap ? 'label map' : 'logits';
  return { fetched: logits, output, alignCorners: null, numClasses };
}

/** Return the tensor whose argmax `last` is; undefined where there is none. */
function beforeArgmax(file: TfliteFile, last: Tensor): Tensor | undefined {
  let step = file.producer(last.index);
  while (step && ['CAST', 'RESHAPE', 'SQUEEZE', 'EXPAND_DIMS'].includes(step.name)) {
    step = file.producer(step.inputs[0]!);
  }
  if (step?.name !== 'ARG_MAX') return undefined;
  const source = file.tensor(step.inputs[0]!);
  const axis = file.tensor(step.inputs[1]!).buffer;
  const number = new DataView(axis.buffer, axis.byteOffset).getInt32(0, true);
  const fits = source.shape.length === 4 && [3, -1].includes(number);
  return fits && LOGIT_TYPES.includes(source.type) ? source : undefined;
}

/**
 * Return the grid from which the last resize makes `logits`; none where there is no resize.
 *
 * Resizes to the same size do nothing and are passed by; of those that do something only the last
 * is left out, because two in a row are not one.
 */
function beforeResize(
  file: TfliteFile,
  logits: Tensor,
): { grid: Tensor | null; alignCorners: boolean | null } {
  let alignCorners: boolean | null = null;
  let tensor = logits;
  let grid: Tensor | null = null;
  for (;;) {
    const step = file.producer(tensor.index);
    if (!step || file.consumers(tensor.index).length > 1) break;
    const source = file.tensor(step.inputs[0]!);
    if (step.name === 'RESIZE_BILINEAR') {
      const corners = Boolean(step.options?.uint8(2));
      if (source.shape.join() !== tensor.shape.join()) {
        const isKnown = corners || Boolean(step.options?.uint8(3)); // half-pixel centres
        if (alignCorners !== null || !isKnown) break;
        alignCorners = corners;
      }
      // A (DE)QUANTIZE in front of a resize is passed by; one at the very end is left to the
      // engine, which computes it as well as this page could.
      grid = source;
    } else if (step.name !== 'DEQUANTIZE' && step.name !== 'QUANTIZE') {
      break;
    }
    tensor = source;
  }
  const fits = grid && LOGIT_TYPES.includes(grid.type) && grid.shape.length === 4;
  return fits ? { grid, alignCorners } : { grid: null, alignCorners: null };
}

/** Whether a grid's steps are a power of two of the frame's. */
function isStride(frame: number, grid: number): boolean {
  const step = frame / grid;
  return grid > 0 && Number.isInteger(step) && (step & (step - 1)) === 0;
}

/**
 * What an integer input says about normalisation. The published files take the picture's bytes as
 * they are, so a byte stands for (byte - zero point) * scale.
 */
function fromType(input: Tensor): { mean: number[]; std: number[] } | null {
  if (!input.quantization) return null;
  const { scale, zeroPoint } = input.quantization;
  return { mean: [zeroPoint + (input.type === 'INT8' ? 128 : 0)], std: [1 / scale] };
}

function three(values: number[]): Triple {
  const all = values.length === 1 ? [values[0]!, values[0]!, values[0]!] : values;
  if (all.length !== 3) {
    throw new Error(`The metadata normalises with ${values.length} numbers, expected 1 or 3.`);
  }
  return all as Triple;
}
