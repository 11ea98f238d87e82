/**
 * Pictures through the network and onto the screen: one photo, or one frame after another.
 *
 * A photo or a frame goes to the engine's worker, comes back with its mask, and is drawn. Of moving
 * pictures only the latest frame is taken; the worker is at the next one while one is drawn.
 */

import { Painter, type Look } from './draw';
import type { Engine, SegmentOptions, Segmented } from './engine';
import type { LabelSet } from './labels';
import { nextFrame, type Stream } from './sources';

export type Source =
  | { picture: ImageBitmap; name: string }
  /** `file` is what a video was read from. */
  | { stream: Stream; name: string; file?: Blob };

type Wanted = Pick<SegmentOptions, 'confidence' | 'shares'>;

/** Milliseconds of each step; frames per second of moving pictures. */
export interface Speed {
  fit: number;
  network: number;
  mask: number;
  draw: number;
  fps: number | null;
}

/** What is on the screen. */
export interface Shown {
  result: Segmented;
  labels: LabelSet;
  speed: Speed;
}

export interface Listener {
  /** Something was drawn. */
  onShown: (shown: Shown) => void;
  /** Another picture was taken; nothing is known of it yet. */
  onSource: (source: Source) => void;
  onProblem: (error: Error) => void;
  /** A photo is with the network, or has come back. */
  onWorking: (working: boolean) => void;
}

/** The share of the newest number in a running mean. */
const NEWEST = 0.1;

export class Pipeline {
  source: Source | undefined;
  shown: Shown | undefined;
  smooth = true;
  private wanted: Wanted = { confidence: false, shares: false };
  private network: { engine: Engine; labels: LabelSet; tellsMore: boolean } | undefined;
  private readonly painter: Painter;
  /** Counts the starts; work that belongs to an older one ends. */
  private run = 0;

  constructor(
    canvas: HTMLCanvasElement,
    private readonly look: Look,
    private readonly listener: Listener,
  ) {
    this.painter = new Painter(canvas);
  }

  /**
   * Take another network for all that follows, and for what is on the screen; `tellsMore` than
   * classes where it has logits.
   */
  useNetwork(engine: Engine, labels: LabelSet, tellsMore: boolean): void {
    this.network?.engine.close();
    this.network = { engine, labels, tellsMore };
    void this.start();
  }

  /** Other names for the classes of the network. */
  useLabels(labels: LabelSet): void {
    if (this.network) this.network.labels = labels;
    if (this.shown) this.shown.labels = labels;
    this.repaint();
  }

  /** Show a photo, a video or the camera in place of what is shown. */
  show(source: Source): void {
    if (this.source && 'stream' in this.source) this.source.stream.close();
    else this.source?.picture.close();
    this.source = source;
    this.shown?.result.picture.close();
    this.shown = undefined;
    if ('picture' in source) this.painter.paintPlain(source.picture);
    this.listener.onWorking(false);
    this.listener.onSource(source);
    void this.start();
  }

  /** Stop moving pictures, and keep the last of them as a photo. */
  async stop(): Promise<void> {
    const { source, shown } = this;
    if (!source || !('stream' in source)) return;
    ++this.run;
    source.stream.close();
    this.source = undefined;
    if (!shown) return;
    const picture = await createImageBitmap(shown.result.picture);
    if (this.source) return picture.close(); // another came meanwhile
    this.source = { picture, name: source.name };
    this.shown = { ...shown, speed: { ...shown.speed, fps: null } };
    this.listener.onShown(this.shown);
  }

  /**
   * Segment one more picture, beside what is on the screen; one that is not `fresh` is the next
   * frame of a video.
   */
  async segmentAside(photo: ImageBitmap, fresh = true): Promise<Shown> {
    if (!this.network) throw new Error('There is no network yet: open a .tflite first.');
    const { engine, labels } = this.network;
    const smooth = this.smooth && (!fresh || this.isVideo);
    const result = await engine.segment(photo, this.options(fresh, smooth));
    return { result, labels, speed: { ...result.ms, draw: 0, fps: null } };
  }

  /** What results have to tell beside the mask; what is on the screen is computed anew. */
  want(wanted: Wanted): void {
    this.wanted = wanted;
    if (!this.shown) return;
    const { confidence, shares } = this.shown.result;
    const lacks = (wanted.confidence && !confidence) || (wanted.shares && !shares);
    if (lacks && this.network?.tellsMore) void this.start();
  }

  /** Draw what is on the screen once more, in another look. */
  repaint(): void {
    if (!this.shown) return;
    this.painter.paint(this.shown.result, this.shown.labels, this.look);
    this.listener.onShown(this.shown);
  }

  private get isVideo(): boolean {
    return this.source !== undefined && 'stream' in this.source;
  }

  private async start(): Promise<void> {
    const run = ++this.run;
    const { source, network } = this;
    if (!source) return;
    const isCurrent = () => run === this.run;
    try {
      if (!network) {
        if ('stream' in source) await this.preview(source.stream.video, isCurrent);
      } else if ('stream' in source)
        await this.play(source.stream.video, network.engine, isCurrent);
      else await this.showPhoto(source.picture, network.engine, isCurrent);
    } catch (error) {
      if (!isCurrent()) return;
      this.listener.onWorking(false);
      this.listener.onProblem(error as Error);
    }
  }

  private async showPhoto(
    photo: ImageBitmap,
    engine: Engine,
    isCurrent: () => boolean,
  ): Promise<void> {
    // A copy goes to the worker: should another network come, the photo is needed again.
    this.listener.onWorking(true);
    const result = await engine.segment(await createImageBitmap(photo), this.options(true, false));
    if (!isCurrent()) return;
    this.listener.onWorking(false);
    const draw = this.draw(result);
    this.tell(result, { ...result.ms, draw, fps: null });
  }

  /** Moving pictures while there is no network yet. */
  private async preview(video: HTMLVideoElement, isCurrent: () => boolean): Promise<void> {
    for (let seen = -1; ; seen = video.currentTime) {
      await nextFrame(video, seen);
      if (!isCurrent()) return;
      const picture = await createImageBitmap(video);
      this.painter.paintPlain(picture);
      picture.close();
    }
  }

  private async play(
    video: HTMLVideoElement,
    engine: Engine,
    isCurrent: () => boolean,
  ): Promise<void> {
    let seen = -1;
    let fresh = true;
    const segmentNext = async () => {
      await nextFrame(video, seen);
      seen = video.currentTime;
      const picture = await createImageBitmap(video);
      const answer = engine.segment(picture, this.options(fresh, this.smooth));
      fresh = false;
      return answer;
    };
    let next = segmentNext();
    let speed: Speed | undefined;
    let drawnAt = 0;
    for (;;) {
      const result = await next;
      if (!isCurrent()) return;
      next = segmentNext();
      next.catch(() => {}); // heard of when it is awaited, unless another source has come by then
      const draw = this.draw(result);
      const now = performance.now();
      const fps = speed ? 1000 / (now - drawnAt) : 0;
      speed = mean(speed, { ...result.ms, draw, fps });
      drawnAt = now;
      this.tell(result, speed);
    }
  }

  private options(fresh: boolean, smooth: boolean) {
    return { fresh, smooth, ...this.wanted };
  }

  /** Draw a result; return the milliseconds that it took. */
  private draw(result: Segmented): number {
    const begin = performance.now();
    this.painter.paint(result, this.network!.labels, this.look);
    return performance.now() - begin;
  }

  private tell(result: Segmented, speed: Speed): void {
    if (this.shown?.result !== result) this.shown?.result.picture.close();
    this.shown = { result, labels: this.network!.labels, speed };
    this.listener.onShown(this.shown);
  }
}

function mean(old: Speed | undefined, now: Speed): Speed {
  const mix = (a: number, b: number) => (a ? a + NEWEST * (b - a) : b);
  if (!old) return now;
  return {
    fit: mix(old.fit, now.fit),
    network: mix(old.network, now.network),
    mask: mix(old.mask, now.mask),
    draw: mix(old.draw, now.draw),
    fps: mix(old.fps ?? 0, now.fps ?? 0),
  };
}
