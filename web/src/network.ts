/** Run a network with LiteRT.js: RGB frame in, logits or a label map out. */

import { loadLiteRt, Tensor as LiteRtTensor, TensorBufferType, type LiteRt } from '@litertjs/core';

import { roundHalfEven } from './geometry';
import type { Tensor } from './tflite';
import type { Network } from './understand';
import { argmax, type Grid } from './upsample';

export type Processor = 'gpu' | 'cpu';

/** How an engine is opened. Another choice needs another worker. */
export interface EngineOptions {
  processor: Processor;
  /** 1 runs everywhere; more need a page that is isolated from other origins. */
  threads: number;
  /** The folder with LiteRT's WebAssembly files. */
  wasmFolder: string;
  /** The one of them that this choice takes, compiled; null leaves it to LiteRT. */
  module: WebAssembly.Module | null;
}

/** Between the graphics processor's answer and the CPU's, in parts of the answer's spread. */
const MOST_ERROR = 0.02;

let engine: Promise<LiteRt> | undefined;

/** Load LiteRT's WebAssembly into this worker, once. */
export function openEngine({ threads, wasmFolder, module }: EngineOptions): Promise<LiteRt> {
  const isThreaded = threads > 1;
  // LiteRT starts as many helpers as there are cores; this is the only way to tell it otherwise.
  Object.defineProperty(navigator, 'hardwareConcurrency', { value: threads });
  // In a worker, LiteRT's own script cannot find out where it was loaded from.
  Object.assign(self, {
    Module: {
      locateFile: (file: string) => wasmFolder + file,
      mainScriptUrlOrBlob: `${wasmFolder}litert_wasm_threaded_internal.js`,
      ...(module && { instantiateWasm: instantiate(module) }),
      // It writes all it does to the console's errors.
      printErr: (text: string) =>
        (/^(ERROR|FATAL)/.test(text) ? console.error : console.debug)(text),
    },
  });
  engine ??= loadLiteRt(wasmFolder, { threads: isThreaded });
  return engine;
}

/** Emscripten's hook for what is compiled already. */
function instantiate(module: WebAssembly.Module) {
  return (
    imports: WebAssembly.Imports,
    done: (instance: WebAssembly.Instance, module: WebAssembly.Module) => void,
  ) => {
    void WebAssembly.instantiate(module, imports).then((instance) => done(instance, module));
    return {};
  };
}

type Wasm = LiteRt['liteRtWasm'];
type TensorBuffer = ReturnType<Wasm['LiteRtTensorBuffer']['createManaged']>;
type Compiled = Awaited<ReturnType<Wasm['compileModel']>>;

/** A network in the engine. It runs one frame at a time. */
export class RunningNetwork {
  private readonly tables: (Float32Array | Uint8Array)[];

  private constructor(
    readonly network: Network,
    private readonly processor: Processor,
    private readonly wasm: Wasm,
    private readonly compiled: Compiled,
    private readonly input: TensorBuffer,
    /** Frees the engine's memory. */
    readonly close: () => void,
  ) {
    this.tables = inputTables(network);
  }

  /** Throws an Error in plain words where the processor cannot run the network, or runs it wrongly. */
  static async open(network: Network, options: EngineOptions): Promise<RunningNetwork> {
    const liteRt = await openEngine(options);
    if (options.processor === 'cpu') return RunningNetwork.compile(network, liteRt, options);
    if (network.input.type !== 'FLOAT32' || network.fetched.type !== 'FLOAT32') {
      throw new Error('Graphics processors are not given integers.');
    }
    const running = await RunningNetwork.compile(network, liteRt, options);
    // Some steps come out wrong on some graphics processors, without an error.
    const judge = await RunningNetwork.compile(network, liteRt, { ...options, processor: 'cpu' });
    const frame = testFrame(network);
    const error = relativeError(await running.run(frame), await judge.run(frame));
    judge.close();
    if (error > MOST_ERROR)
      throw new Error('The graphics processor computes this network wrongly.');
    return running;
  }

  private static async compile(
    network: Network,
    liteRt: LiteRt,
    { processor, threads }: EngineOptions,
  ): Promise<RunningNetwork> {
    const wasm = liteRt.liteRtWasm;
    const environment = liteRt.getDefaultEnvironment();
    const isGpu = processor === 'gpu';
    if (isGpu && !environment.webGpuDevice) throw new Error('This browser has no WebGPU.');
    const { content } = network;
    const weights = wasm._malloc(content.byteLength);
    wasm.HEAPU8.set(content, weights);
    const model = wasm.loadModel(environment.liteRtEnvironment, weights, content.byteLength);
    const compiled = await wasm.compileModel(environment.liteRtEnvironment, model, {
      environment,
      accelerator: isGpu ? 'webgpu' : 'wasm',
      cpuOptions: { numThreads: threads },
      gpuOptions: { precision: 'fp32' },
      webNNOptions: {},
    } as Parameters<Wasm['compileModel']>[2]);
    if (isGpu && !compiled.isFullyAccelerated()) {
      throw new Error('The graphics processor cannot run every step of this network.');
    }
    const type = model.getInputTensorType(0, 0);
    const input = wasm.LiteRtTensorBuffer.createManaged(
      environment.liteRtEnvironment,
      wasm.LiteRtTensorBufferType.HOST_MEMORY,
      type,
      type.bytes(),
    );
    const close = () => {
      for (const part of [input, compiled, model]) part.delete();
      wasm._free(weights);
    };
    return new RunningNetwork(network, processor, wasm, compiled, input, close);
  }

  /** Run one frame: (height, width, 3) RGB bytes, not normalised. */
  async run(frame: Uint8Array): Promise<Grid> {
    this.feed(frame);
    const [fetched] =
      this.processor === 'gpu' ? await this.runOnGpu() : await this.compiled.run(0, [this.input]);
    const bytes = this.read(fetched!);
    fetched!.delete();
    return toGrid(bytes, this.network);
  }

  private async runOnGpu(): Promise<TensorBuffer[]> {
    const host = new LiteRtTensor(this.input);
    const device = await host.copyTo(TensorBufferType.WEB_GPU_BUFFER_PACKED);
    const [answer] = await this.compiled.run(0, [device.liteRtTensorBuffer]);
    device.delete();
    const fetched = await new LiteRtTensor(answer!).moveTo(TensorBufferType.HOST_MEMORY);
    return [fetched.liteRtTensorBuffer];
  }

  private feed(frame: Uint8Array): void {
    const at = this.input.lock(this.wasm.LiteRtTensorBufferLockMode.WRITE);
    const [red, green, blue] = this.tables as [Uint8Array, Uint8Array, Uint8Array];
    const { buffer } = this.wasm.HEAPU8;
    const View = this.network.input.type === 'FLOAT32' ? Float32Array : Uint8Array;
    const out = new View(buffer as ArrayBuffer, at, frame.length);
    const isPlanar = this.network.inputChannelsFirst;
    const plane = isPlanar ? frame.length / 3 : 1;
    const step = isPlanar ? 1 : 3;
    for (let i = 0, o = 0; i < frame.length; i += 3, o += step) {
      out[o] = red[frame[i]!]!;
      out[o + plane] = green[frame[i + 1]!]!;
      out[o + 2 * plane] = blue[frame[i + 2]!]!;
    }
    this.input.unlock();
  }

  private read(tensor: TensorBuffer): ArrayBuffer {
    const at = tensor.lock(this.wasm.LiteRtTensorBufferLockMode.READ);
    const bytes = this.wasm.HEAPU8.slice(at, at + tensor.packedSize());
    tensor.unlock();
    return bytes.buffer as ArrayBuffer;
  }
}

/** A picture with something in it: colour ramps under a fine pattern. */
function testFrame({ height, width }: Network): Uint8Array {
  return Uint8Array.from({ length: height * width * 3 }, (_, i) => {
    const [x, y] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width)];
    return (200 * [x / width, y / height, 1 - x / width][i % 3]! + 55 * ((x * y) % 2)) & 255;
  });
}

/** The root mean square difference, in units of the expected values' standard deviation. */
function relativeError({ values }: Grid, { values: expected }: Grid): number {
  const mean = expected.reduce((sum, value) => sum + value, 0) / expected.length;
  const spread = expected.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const error = values.reduce((sum, value, i) => sum + (value - expected[i]!) ** 2, 0);
  return Math.sqrt(error / Math.max(spread, Number.MIN_VALUE));
}

/** What each byte of a picture becomes in the input tensor, for red, green and blue. */
export function inputTables({ input, mean, std }: Network): (Float32Array | Uint8Array)[] {
  return [0, 1, 2].map((channel) => {
    const [m, s] = [mean[channel]!, std[channel]!];
    if (input.type === 'FLOAT32') {
      // In 32 bits, as the network computes.
      const byte = (value: number) => Math.fround(value - Math.fround(m)) / Math.fround(s);
      return Float32Array.from({ length: 256 }, (_, value) => byte(value));
    }
    const { scale, zeroPoint } = input.quantization!;
    const [low, high] = input.type === 'INT8' ? [-128, 127] : [0, 255];
    return Uint8Array.from({ length: 256 }, (_, value) => {
      const stored = roundHalfEven((value - m) / s / scale) + zeroPoint;
      return Math.min(Math.max(stored, low), high); // a byte; negative ones wrap, as in memory
    });
  });
}

/** The fetched bytes as real numbers: logits, or one "class" that is the label map itself. */
export function toGrid(bytes: ArrayBuffer, network: Network): Grid {
  const { fetched, output, numClasses, channelsFirst } = network;
  const isFirst = channelsFirst && fetched.shape.length === 4;
  const [height, width] = (isFirst ? fetched.shape.slice(2) : fetched.shape.slice(1, 3)) as [
    number,
    number,
  ];
  let values = dequantize(typed(bytes, fetched), output === 'logits' ? fetched : null);
  const classes = values.length / (height * width);
  if (isFirst) values = channelsLast(values, classes);
  if (network.oneChannel) values = twoClasses(values, network.softmaxed);
  const grid = { height, width, classes: network.oneChannel ? 2 : classes, values };
  if (output === 'logits' || classes === 1 || numClasses === null) return grid;
  return { height, width, classes: 1, values: Float32Array.from(argmax(grid)) };
}

function channelsLast(planes: Float32Array, classes: number): Float32Array {
  const points = planes.length / classes;
  const values = new Float32Array(planes.length);
  for (let c = 0; c < classes; c++) {
    for (let i = 0; i < points; i++) values[i * classes + c] = planes[c * points + i]!;
  }
  return values;
}

/** Of one number that says object or not, the numbers of background and object. */
function twoClasses(object: Float32Array, softmaxed: boolean): Float32Array {
  const values = new Float32Array(2 * object.length);
  object.forEach((value, i) => {
    values[2 * i] = softmaxed ? Math.fround(1 - value) : 0;
    values[2 * i + 1] = value;
  });
  return values;
}

type Numbers = Float32Array | Uint8Array | Int8Array | Int32Array | BigInt64Array;

function typed(bytes: ArrayBuffer, { type }: Tensor): Numbers {
  if (type === 'UINT8') return new Uint8Array(bytes);
  if (type === 'INT8') return new Int8Array(bytes);
  if (type === 'INT32') return new Int32Array(bytes);
  if (type === 'INT64') return new BigInt64Array(bytes);
  return new Float32Array(bytes);
}

function dequantize(stored: Numbers, tensor: Tensor | null): Float32Array {
  if (stored instanceof Float32Array) return stored;
  const { scale, zeroPoint } = tensor?.quantization ?? { scale: 1, zeroPoint: 0 };
  return Float32Array.from(stored as ArrayLike<number>, (value) => {
    return (Number(value) - zeroPoint) * scale;
  });
}
