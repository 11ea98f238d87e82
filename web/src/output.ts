/**
 * Where in the graph of a `.tflite` its answer lies, and how it is read.
 *
 * Published files end in a bilinear resize to the frame, often followed by an argmax. Both decide
 * nothing: `upsample.ts` goes from the small grid of logits straight to the photo's size. So the
 * graph is cut in front of them. The same decisions as in `runtimes/tflite_output.py`.
 */

import type { Size } from './geometry';
import type { Operator, Tensor, TfliteFile } from './tflite';

/** How a fetched tensor becomes logits or a label map. */
export interface Reading {
  /** "label map": the argmax of what is fetched, or what is fetched itself. */
  output: 'logits' | 'label map';
  /** [1, K, h, w] instead of [1, h, w, K]. */
  channelsFirst: boolean;
  /** A single number says object or background, above or below the half. */
  oneChannel: boolean;
  /** The numbers are probabilities already. */
  softmaxed: boolean;
}

export interface FoundOutput extends Reading {
  fetched: Tensor;
  alignCorners: boolean | null;
  /** null where only a label map of unknown range comes out. */
  numClasses: number | null;
  /** What was assumed, in words. */
  assumed: string[];
}

const MOST_CLASSES = 256;
const LOGIT_TYPES = ['FLOAT32', 'UINT8', 'INT8'];
const MAP_TYPES = ['INT64', 'INT32', 'UINT8', 'INT8'];
/** Steps behind which probabilities are still probabilities. */
// prettier-ignore
const PASSING = ['DEQUANTIZE', 'QUANTIZE', 'RESHAPE', 'TRANSPOSE', 'RESIZE_BILINEAR', 'CAST', 'SQUEEZE'];

/** Return where the answer lies. Throws an Error in plain words where there is none. */
export function findOutput(file: TfliteFile, frame: Size, channelsFirst: boolean): FoundOutput {
  const { output, assumed } = chooseOutput(file, frame, channelsFirst);
  const first = comesFirst(file, output, channelsFirst, frame);
  let fetched = output;
  let isMap = isLabelMap(file, output, first ? 1 : 3);
  const source = isMap ? beforeArgmax(file, output) : output;
  let alignCorners: boolean | null = null;
  if (source && !channelsFirst) {
    const cut = beforeResize(file, source);
    if (cut.grid) {
      fetched = cut.grid;
      alignCorners = cut.alignCorners;
      isMap = false;
    }
  }
  if (isMap) {
    const reading = { output: 'label map', oneChannel: false, softmaxed: false } as const;
    const numClasses = source?.shape[3] ?? null;
    // The engine has no 64-bit results, so an argmax is computed here, from what it is fed with.
    const isOurs = source && !channelsFirst;
    const wanted = isOurs
      ? { fetched: source, channelsFirst: false }
      : { fetched: output, channelsFirst: first };
    return { ...reading, ...wanted, alignCorners, numClasses, assumed };
  }
  const channels = fetched.shape.length === 3 ? 1 : fetched.shape[first ? 1 : 3]!;
  const softmaxed = endsInProbabilities(file, fetched, channels);
  const oneChannel = channels === 1;
  if (oneChannel) {
    const what = softmaxed ? 'probabilities' : 'logits';
    assumed.push(`its one channel as ${what} of background and object`);
  }
  return {
    fetched,
    output: 'logits',
    channelsFirst: first,
    oneChannel,
    softmaxed,
    alignCorners,
    numClasses: Math.max(channels, 2),
    assumed,
  };
}

function chooseOutput(file: TfliteFile, frame: Size, channelsFirst: boolean) {
  const outputs = file.outputs.map((index) => file.tensor(index));
  const fitting = outputs.filter((output) => isAnswer(file, output, channelsFirst, frame));
  // The main head comes first in what torchvision and Keras write, but names are surer.
  const isAuxiliary = ({ name }: Tensor) => Number(/aux/i.test(name));
  fitting.sort((a, b) => isAuxiliary(a) - isAuxiliary(b));
  const [output] = fitting;
  if (!output) {
    const got = outputs.map(({ shape }) => `[${shape.join(', ')}]`).join(', ');
    throw new Error(
      `${file.name} is not a DeepLab: its output is ${got}, expected logits ` +
        '[1, h, w, classes] or a label map [1, h, w].',
    );
  }
  const assumed = outputs.length > 1 ? [`output '${output.name}' of several`] : [];
  return { output, assumed };
}

/** Whether an output has the shape and type of logits or of a label map. */
function isAnswer(file: TfliteFile, output: Tensor, channelsFirst: boolean, frame: Size): boolean {
  const { shape, type } = output;
  if (shape[0] !== 1 || ![3, 4].includes(shape.length)) return false;
  let channels = 1;
  if (shape.length === 4) channels = shape[comesFirst(file, output, channelsFirst, frame) ? 1 : 3]!;
  if (MAP_TYPES.includes(type) && channels === 1) return true;
  return LOGIT_TYPES.includes(type) && channels >= 1 && channels <= MOST_CLASSES;
}

/**
 * Whether an output's channels come first.
 *
 * Exporters that put the picture's channels last do not always do so with the answer's: where the
 * other two axes have the shape of the frame, they are its rows and columns.
 */
function comesFirst(
  file: TfliteFile,
  { shape }: Tensor,
  channelsFirst: boolean,
  frame: Size,
): boolean {
  if (shape.length === 3) return channelsFirst;
  const [first, last] = [shape.slice(2, 4), shape.slice(1, 3)];
  if (liesOn(channelsFirst ? first : last, frame)) return channelsFirst;
  if (!liesOn(channelsFirst ? last : first, frame)) return channelsFirst;
  if (channelsFirst) {
    throw new Error(
      `${file.name}: channels come first in its input, but last in its output ` +
        `[${shape.join(', ')}]; export it with both alike.`,
    );
  }
  return true;
}

/** Whether a grid has about the same step along both sides of a frame. */
function liesOn([rows, columns]: number[], { height, width }: Size): boolean {
  const steps = [height / Math.max(rows!, 1), width / Math.max(columns!, 1)];
  const least = Math.min(...steps);
  return least >= 1 && Math.max(...steps) <= 1.35 * least;
}

/** Whether an output is class ids, not numbers of which one is the largest. */
function isLabelMap(file: TfliteFile, output: Tensor, axis: number): boolean {
  if (!MAP_TYPES.includes(output.type)) return false;
  if (output.shape.length === 4 && output.shape[axis] !== 1) return false;
  // One channel of bytes that stand for real numbers is a confidence, if no argmax made it.
  const step = file.producer(output.index);
  const isCast = step?.name === 'CAST' || step?.name === 'ARG_MAX';
  return output.quantization === null || beforeArgmax(file, output) !== undefined || isCast;
}

/** Whether a softmax or sigmoid made the numbers. */
function endsInProbabilities(file: TfliteFile, output: Tensor, channels: number): boolean {
  let step: Operator | undefined = file.producer(output.index);
  while (step && PASSING.includes(step.name)) step = file.producer(step.inputs[0]!);
  if (step?.name === 'SOFTMAX' || step?.name === 'LOGISTIC') return true;
  if (channels !== 1 || !output.quantization) return false;
  const { scale, zeroPoint } = output.quantization;
  const limits = output.type === 'UINT8' ? [0, 255] : [-128, 127];
  const [low, high] = limits.map((limit) => (limit - zeroPoint) * scale);
  return low! > -0.01 && high! < 1.01;
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
    } else if (step.name !== 'DEQUANTIZE' && step.name !== 'QUANTIZE') {
      break;
    }
    tensor = source;
  }
  const fits = tensor !== logits && LOGIT_TYPES.includes(tensor.type) && tensor.shape.length === 4;
  return fits ? { grid: tensor, alignCorners } : { grid: null, alignCorners: null };
}
