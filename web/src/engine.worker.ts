/** The worker that does the heavy work: picture in, mask out. */

import type { Answer, LoadRequest, Request, SegmentRequest, Segmented } from './engine';
import { classShares, type ClassShares } from './class_shares';
import { confidenceOf } from './confidence';
import { workingSize } from './edges';
import { placeInFrame, type Size } from './geometry';
import { enlarge } from './label_map';
import { RunningNetwork } from './network';
import { findMasks, type Bits } from './overlapping';
import { resizeIntoFrame } from './resize';
import { Smoother } from './smooth';
import { TfliteFile } from './tflite';
import { understand } from './understand';
import { argmaxBilinear, type Grid } from './upsample';

const smoother = new Smoother();
const canvas = new OffscreenCanvas(1, 1);
const context = canvas.getContext('2d', { willReadFrequently: true })!;
let running: RunningNetwork | undefined;

self.onmessage = async ({ data }: MessageEvent<Request>) => {
  try {
    if (data.kind === 'load') {
      reply({ id: data.id, result: await load(data) });
    } else {
      const result = await segment(data);
      const buffers = [result.confidence, result.shares?.values, result.bits?.planes].flatMap(
        (one) => one?.buffer ?? [],
      );
      reply({ id: data.id, result }, [result.picture, result.mask.buffer, ...buffers]);
    }
  } catch (error) {
    reply({ id: data.id, error: error instanceof Error ? error.message : String(error) });
  }
};

function reply(answer: Answer, transfer: Transferable[] = []): void {
  self.postMessage(answer, { transfer });
}

async function load({ name, data, hints, known, options }: LoadRequest) {
  const network = await understand(new TfliteFile(name, data), hints, known);
  running = await RunningNetwork.open(network, options);
  const { height, width, labels, numClasses, assumed } = network;
  const hasConfidence = network.output === 'logits' && !network.thresholds;
  return { height, width, labels, numClasses, assumed, hasConfidence };
}

async function segment({ picture, smooth, fresh, ...wanted }: SegmentRequest): Promise<Segmented> {
  if (!running) throw new Error('There is no network yet.');
  const { network } = running;
  const size = { height: picture.height, width: picture.width };
  const frame = { height: network.height, width: network.width };
  const content = placeInFrame(size, frame, network.fit);
  const begin = performance.now();

  const padding = network.mean.map(Math.trunc);
  const placed = resizeIntoFrame(pixels(picture), size, content, frame, padding);
  const fitted = performance.now();

  const answer = await running.run(placed);
  const answered = performance.now();

  let mask: Uint8Array<ArrayBuffer>;
  let counts: Uint32Array | undefined;
  let bits: Bits | null = null;
  let confidence: Uint8Array<ArrayBuffer> | null = null;
  let shares: ClassShares | null = null;
  if (network.thresholds) {
    const { alignCorners, thresholds } = network;
    const found = findMasks(answer, size, alignCorners, { frame, content }, thresholds);
    ({ topmost: mask, counts, bits } = found);
  } else if (network.output === 'logits') {
    if (fresh || !smooth) smoother.reset();
    const logits = smooth ? steady(answer, placed, frame) : answer;
    const region = { frame, content };
    mask = argmaxBilinear(logits, size, network.alignCorners, region);
    const { alignCorners, softmaxed, temperature } = network;
    const scores = temperature === 1 || softmaxed ? logits : cooled(logits, temperature);
    if (wanted.confidence) {
      confidence = confidenceOf(mask, scores, size, alignCorners, region, softmaxed);
    }
    if (wanted.shares) {
      shares = classShares(scores, workingSize(size), alignCorners, region, softmaxed);
    }
  } else {
    mask = enlarge(Uint8Array.from(answer.values), answer, size, frame, content);
  }
  counts ??= count(mask);
  const end = performance.now();

  return {
    ...size,
    picture,
    mask,
    bits,
    confidence,
    shares,
    counts,
    ms: { fit: fitted - begin, network: answered - fitted, mask: end - answered },
  };
}

/** The smoother takes logits and gives logits; probabilities go through it as their logarithms. */
function steady(answer: Grid, placed: Uint8Array, frame: Size): Grid {
  if (!running!.network.softmaxed) return smoother.smooth(answer, placed, frame);
  const values = answer.values.map((p) => Math.log(Math.max(p, 1e-6)));
  const smooth = smoother.smooth({ ...answer, values }, placed, frame);
  return { ...smooth, values: smooth.values.map(Math.exp) };
}

function cooled(logits: Grid, temperature: number): Grid {
  return { ...logits, values: logits.values.map((value) => value / temperature) };
}

function pixels(picture: ImageBitmap): Uint8ClampedArray {
  const { height, width } = picture;
  if (canvas.height !== height || canvas.width !== width) {
    canvas.height = height;
    canvas.width = width;
  }
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, width, height).data;
}

/** How many pixels each class id has. Most pixels are like the one before. */
function count(mask: Uint8Array): Uint32Array {
  const counts = new Uint32Array(256);
  let start = 0;
  for (let i = 1; i < mask.length; i++) {
    if (mask[i] !== mask[start]) {
      counts[mask[start]!]! += i - start;
      start = i;
    }
  }
  counts[mask[start]!]! += mask.length - start;
  return counts;
}
