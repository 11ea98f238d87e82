/**
 * Understand the graph of a DeepLab `.tflite`: what goes in, what comes out, where to stop.
 *
 * The same decisions as in `runtimes/tflite_network.py`. What neither the file nor the page knows
 * is assumed, and said.
 */

import type { Fit } from './geometry';
import type { LabelSet } from './labels';
import { readMetadata, refuseSpecial } from './metadata';
import { findOutput, type Reading } from './output';
import { TfliteFile, type Tensor } from './tflite';

export type Triple = [number, number, number];

/** What the page knows about a model beside its file; what the file says goes first. */
export interface Hints {
  labels?: LabelSet;
  mean?: Triple;
  std?: Triple;
}

/** What must be known to run a DeepLab file. */
export interface Network extends Reading {
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
  /** The picture's tensor is [1, 3, height, width]. */
  inputChannelsFirst: boolean;
  fetched: Tensor;
  alignCorners: boolean;
  /** Its logits are divided by it before they become probabilities; masks do not change. */
  temperature: number;
  /** null where only a label map of unknown range comes out. */
  numClasses: number | null;
  labels: LabelSet | null;
  /** How probable each class must be to be there; null where they exclude each other. */
  thresholds: number[] | null;
  /** What neither the file nor its host says, in words. */
  assumed: string[];
}

const USUAL: Triple = [127.5, 127.5, 127.5];

/** Find out how a DeepLab file is run. Throws an Error in plain words where it is none. */
export async function understand(
  file: TfliteFile,
  hints: Hints = {},
  known: LabelSet[] = [],
): Promise<Network> {
  refuseSpecial(file);
  const { input, channelsFirst: inputChannelsFirst } = findInput(file);
  const [height, width] = inputChannelsFirst ? input.shape.slice(2) : input.shape.slice(1, 3);
  const frame = { height: height!, width: width! };
  const found = findOutput(file, frame, inputChannelsFirst);
  const metadata = await readMetadata(file, known);
  const assumed = [...found.assumed];
  let labels = metadata?.labels ?? hints.labels ?? null;
  if (found.oneChannel) labels = nameTwo(file.name, labels, assumed);
  checkLabels(file.name, labels, found.numClasses);
  const thresholds = metadata?.thresholds ?? null;
  if (thresholds && (found.output !== 'logits' || found.softmaxed || found.oneChannel)) {
    throw new Error(`The classes of ${file.name} overlap, but its output is no logits of them.`);
  }
  const stated = metadata?.mean.length && metadata.std.length ? metadata : fromType(input);
  if (!stated && !hints.mean) assumed.push('pixels scaled to -1..1');
  const grid = found.fetched.shape;
  const [h, w] = found.channelsFirst && grid.length === 4 ? grid.slice(2) : grid.slice(1, 3);
  return {
    ...found,
    name: file.name,
    content: file.cut(found.fetched.index),
    ...frame,
    mean: three(stated?.mean ?? hints.mean ?? USUAL),
    std: three(stated?.std ?? hints.std ?? USUAL),
    fit: metadata?.fit ?? 'letterbox',
    input,
    inputChannelsFirst,
    alignCorners:
      found.alignCorners ??
      metadata?.alignCorners ??
      // Where nothing says it: the original's frames are k * output stride + 1.
      (isStride(frame.height - 1, h! - 1) && isStride(frame.width - 1, w! - 1)),
    temperature: metadata?.temperature ?? 1,
    labels,
    thresholds,
    assumed,
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

/** The two classes of a network with one channel: one name is the object's, of two the second. */
function nameTwo(name: string, labels: LabelSet | null, assumed: string[]): LabelSet {
  const two = (names: string[]): LabelSet => ({
    names,
    colours: [
      [0, 0, 0],
      [128, 0, 0],
    ],
    background: 0,
  });
  if (!labels) {
    assumed.push('classes background and object');
    return two(['background', 'object']);
  }
  if (labels.names.length === 1) return two(['background', labels.names[0]!]);
  if (labels.names.length === 2) return labels;
  throw new Error(
    `There are ${labels.names.length} label names, but ${name} has one channel, so two classes: ` +
      'background and object. Name the object, or both.',
  );
}

function findInput(file: TfliteFile): { input: Tensor; channelsFirst: boolean } {
  if (file.operators.some(({ name }) => name === 'edgetpu-custom-op')) {
    throw new Error(
      `${file.name} is compiled for the Edge TPU, and runs on that alone; take the .tflite it was ` +
        "compiled from (its name without '_edgetpu').",
    );
  }
  const input = file.tensor(file.inputs[0]!);
  const { shape, type } = input;
  const isPicture = shape.length === 4 && shape[0] === 1 && (shape[1] === 3 || shape[3] === 3);
  if (file.inputs.length !== 1 || !isPicture) {
    const got = file.inputs.map((i) => `[${file.tensor(i).shape.join(', ')}]`).join(', ');
    throw new Error(
      `${file.name} is not a DeepLab: its input is ${got}, expected one RGB picture ` +
        '[1, height, width, 3] or [1, 3, height, width].',
    );
  }
  if (input.signature.slice(1).some((side) => side < 0)) {
    throw new Error(
      `${file.name} takes pictures of any size, and this page runs networks of one size: export ` +
        'it at the size that it was trained at (deeplab export … --size 513).',
    );
  }
  const integer = (type === 'UINT8' || type === 'INT8') && input.quantization;
  if (type !== 'FLOAT32' && !integer) {
    throw new Error(
      `${file.name}: its input has type ${type}, expected FLOAT32, or UINT8 or INT8 with scale ` +
        'and zero point.',
    );
  }
  return { input, channelsFirst: shape[3] !== 3 };
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
