/**
 * What is in a `.tflite` file: tensors, operators, metadata entries; and how to cut its end off.
 *
 * Numbers below are positions of fields in the tables of the schema, and its enumerations.
 * Source: tensorflow/compiler/mlir/lite/schema/schema.fbs.
 */

import { Table } from './flatbuffer';

// prettier-ignore
const TYPES: Record<number, TensorType> = {
  0: 'FLOAT32', 1: 'FLOAT16', 2: 'INT32', 3: 'UINT8', 4: 'INT64', 7: 'INT16', 9: 'INT8',
};
// prettier-ignore
const OPERATORS: Record<number, string> = {
  3: 'CONV_2D', 4: 'DEPTHWISE_CONV_2D', 6: 'DEQUANTIZE', 14: 'LOGISTIC', 22: 'RESHAPE',
  23: 'RESIZE_BILINEAR', 25: 'SOFTMAX', 39: 'TRANSPOSE', 43: 'SQUEEZE', 53: 'CAST', 56: 'ARG_MAX',
  70: 'EXPAND_DIMS', 114: 'QUANTIZE',
};
const CUSTOM = 32;

export type TensorType =
  'FLOAT32' | 'FLOAT16' | 'INT32' | 'UINT8' | 'INT64' | 'INT16' | 'INT8' | 'other';

export interface Tensor {
  index: number;
  name: string;
  shape: number[];
  /** The shape with -1 for sides that the file leaves open; empty where it leaves none. */
  signature: number[];
  type: TensorType;
  /** `real = (stored - zeroPoint) * scale`; null for real-valued tensors. */
  quantization: { scale: number; zeroPoint: number } | null;
  /** The stored bytes of a constant; empty for tensors that are computed. */
  buffer: Uint8Array;
}

/** One step of the graph; those whose kind does not matter here are called "other". */
export interface Operator {
  index: number;
  name: string;
  inputs: number[];
  outputs: number[];
  options: Table | undefined;
}

export class TfliteFile {
  readonly tensors: Tensor[];
  readonly operators: Operator[];
  readonly inputs: number[];
  readonly outputs: number[];
  /** Metadata buffers by name; "TFLITE_METADATA" is the standard one. */
  readonly entries = new Map<string, Uint8Array>();
  private readonly model: Table;
  private readonly graph: Table;

  /** Throws an Error in plain words where the file is no TFLite model, or a damaged one. */
  constructor(
    readonly name: string,
    readonly data: Uint8Array,
  ) {
    refuseOtherFiles(name, data);
    try {
      this.model = Table.root(new DataView(data.buffer, data.byteOffset, data.byteLength));
      const graph = this.model.tables(2)[0];
      if (!graph) throw new Error('it has no graph');
      this.graph = graph;
      const buffers = this.model.tables(4);
      const codes = this.model.tables(1).map(operatorName);
      this.tensors = graph.tables(0).map((table, i) => readTensor(table, i, buffers));
      this.operators = graph.tables(3).map((table, index) => ({
        index,
        name: codes[table.int32(0)] ?? 'other',
        inputs: table.ints(1),
        outputs: table.ints(2),
        options: table.table(4),
      }));
      this.inputs = graph.ints(1);
      this.outputs = graph.ints(2);
      for (const entry of this.model.tables(6)) {
        this.entries.set(entry.text(0), buffers[entry.int32(1)]!.bytes(0));
      }
      this.checkNumbers();
    } catch (error) {
      const reason = (error as Error).message;
      throw new Error(`${name} is damaged or cut off (${reason}). Download it again.`);
    }
  }

  tensor(index: number): Tensor {
    return this.tensors[index]!;
  }

  /** The operator that computes a tensor; undefined for inputs and constants. */
  producer(tensor: number): Operator | undefined {
    return this.operators.find((operator) => operator.outputs.includes(tensor));
  }

  consumers(tensor: number): Operator[] {
    return this.operators.filter((operator) => operator.inputs.includes(tensor));
  }

  /**
   * Return the model with `tensor` as its only output and everything behind it removed.
   *
   * The first number in the lists of outputs, and the lengths of these and of the list of
   * operators, are overwritten; all other bytes stay, so the tensor has exactly the values it has
   * inside the whole model.
   */
  cut(tensor: number): Uint8Array {
    if (this.outputs.length === 1 && tensor === this.outputs[0]) return this.data;
    const last = this.producer(tensor);
    if (!last) throw new Error(`${this.name}: tensor ${tensor} cannot become the only output.`);
    const data = this.data.slice();
    const view = new DataView(data.buffer);
    const only = ({ start }: { start: number }) => view.setUint32(start - 4, 1, true);
    view.setInt32(this.graph.vector(2, 4).start, tensor, true);
    only(this.graph.vector(2, 4));
    view.setUint32(this.graph.vector(3, 4).start - 4, last.index + 1, true);
    for (const signature of this.model.tables(7)) {
      const at = signature.tables(1)[0]?.at(1);
      if (at === undefined) continue; // output 0 is left out where it is tensor 0
      view.setUint32(at, tensor, true);
      only(signature.vector(1, 4));
    }
    return data;
  }

  /**
   * Whether the weights are integers: whatever its ends say, such a network computes with bytes.
   *
   * Graphics processors are not for these; the CPU runs them at three times the speed of others.
   */
  get isInteger(): boolean {
    return this.operators.some(
      ({ name, inputs }) =>
        (name === 'CONV_2D' || name === 'DEPTHWISE_CONV_2D') &&
        ['INT8', 'UINT8'].includes(this.tensor(inputs[1]!).type),
    );
  }

  private checkNumbers(): void {
    const used = this.operators.flatMap((operator) => [...operator.inputs, ...operator.outputs]);
    const count = this.tensors.length;
    if ([...used, ...this.inputs, ...this.outputs].some((i) => i < -1 || i >= count)) {
      throw new Error(`its graph uses tensors that are not there`);
    }
    if (!this.inputs.length || !this.outputs.length) throw new Error('no input or no output');
  }
}

function refuseOtherFiles(name: string, data: Uint8Array): void {
  const head = new TextDecoder('latin1').decode(data.subarray(0, 64));
  if (head.slice(4, 8) === 'TFL3') return;
  let got = `it begins with other bytes than a TFLite model`;
  if (!data.length) got = 'it is empty';
  else if (head.startsWith('version https://git-lfs')) got = 'it is a Git LFS pointer';
  else if (/^\s*<(!doctype|html)/i.test(head)) got = 'it is a web page (a download gone wrong)';
  throw new Error(`${name} is no model: ${got}. A model is a .tflite file.`);
}

function readTensor(table: Table, index: number, buffers: Table[]): Tensor {
  const stored = table.table(4);
  const scales = stored?.floats(2) ?? [];
  return {
    index,
    name: table.text(3),
    shape: table.ints(0),
    signature: table.ints(7),
    type: TYPES[table.int8(1)] ?? 'other',
    quantization: scales.length ? { scale: scales[0]!, zeroPoint: stored!.longs(3)[0] ?? 0 } : null,
    buffer: buffers[table.int32(2)]!.bytes(0),
  };
}

function operatorName(code: Table): string {
  // Old files keep the number in the first field, new ones in the fourth; the larger is right.
  const number = Math.max(code.int8(0), code.int32(3));
  return number === CUSTOM ? code.text(1) : (OPERATORS[number] ?? 'other');
}
