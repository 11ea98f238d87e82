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
}

let engine: Promise<LiteRt> | undefined;

/** Load LiteRT's WebAssembly into this worker, once. */
export function openEngine({ threads, wasmFolder }: EngineOptions): Promise<LiteRt> {
  const isThreaded = threads > 1;
  // LiteRT starts as many helpers as there are cores; this is the only way to tell it otherwise.
  Object.defineProperty(navigator, 'hardwareConcurrency', { value: threads });
  // In a worker, LiteRT's own script cannot find out where it was loaded from.
  Object.assign(self, {
    Module: {
      locateFile: (file: string) => wasmFolder + file,
      mainScriptUrlOrBlob: `${wasmFolder}litert_wasm_threaded_internal.js`,
      // It writes all it does to the console's errors.
      printErr: (text: string) => (/^(ERROR|FATAL)/.test(text) ? console.error : console.debug)(text),
    },
  });
  engine ??= loadLiteRt(wasmFolder, { threads: isThreaded });
  return engine;
}

type Wasm = LiteRt['liteRtWasm'];
type TensorBuffer = ReturnType<Wasm['LiteRtTensorBuffer']['createManaged']>;
type Compiled = Awaited<ReturnType<Wasm['compileModel']>>;

/** A network in the engine. It runs one frame at a time. */
export class RunningNetwork {
  private constructor(
    readonly network: Network,
    readonly processor: Processor,
    private readonly wasm: Wasm,
    private readonly compiled: Compiled,
    private readonly input: TensorBuffer,
    private readonly tables: (Float32Array | Uint8Array)[],
  ) {}

  static async open(network: Network, options: EngineOptions): Promise<RunningNetwork> {
    const liteRt = await openEngine(options);
    const wasm = liteRt.liteRtWasm;
    const environment = liteRt.getDefaultEnvironment();
    const isGpu = options.processor === 'gpu';
    if (isGpu && !environment.webGpuDevice) throw new Error('This browser has no WebGPU.');
    const { content } = network;
    const at = wasm._malloc(content.byteLength); // stays: the model reads its weights from there
    wasm.HEAPU8.set(content, at);
    const model = wasm.loadModel(environment.liteRtEnvironment, at, content.byteLength);
    const compiled = await wasm.compileModel(environment.liteRtEnvironment, model, {
      environment,
      accelerator: isGpu ? 'webgpu' : 'wasm',
      cpuOptions: { numThreads: options.threads },
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
    return new RunningNetwork(
      network, options.processor, wasm, compiled, input, inputTables(network),
    ); // prettier-ignore
  }

  /** Run one frame: (height, width, 3) RGB bytes, not normalised. */
  async run(frame: Uint8Array): Promise<Grid> {
    this.feed(frame);
    const [fetched] =
      this.processor === 'gpu'
        ? await this.runOnGpu()
        : await this.compiled.run(0, [this.input]);
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
    for (let i = 0; i < frame.length; i += 3) {
      out[i] = red[frame[i]!]!;
      out[i + 1] = green[frame[i + 1]!]!;
      out[i + 2] = blue[frame[i + 2]!]!;
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
function toGrid(bytes: ArrayBuffer, { fetched, output, numClasses }: Network): Grid {
  const [, height, width] = fetched.shape as [number, number, number];
  const values = dequantize(typed(bytes, fetched), output === 'logits' ? fetched : null);
  const grid = { height, width, classes: numClasses ?? 1, values };
  if (output === 'logits' || numClasses === null) return grid;
  return { height, width, classes: 1, values: Float32Array.from(argmax(grid)) };
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
