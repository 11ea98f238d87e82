/**
 * Pictures through the network and onto the screen: one photo, or one frame after another.
 *
 * A photo or a frame goes to the engine's worker, comes back with its mask, and is drawn. Of moving
 * pictures only the latest frame is taken; the worker is at the next one while one is drawn.
 */

import { Painter, type Look } from './draw';
import type { Engine, Segmented } from './engine';
import type { LabelSet } from './labels';
import { decodePhoto, nextFrame, type Stream } from './sources';

export type Source = { photo: Blob; name: string } | { stream: Stream; name: string };

/** Milliseconds of each step; frames per second of moving pictures. */
export interface Speed {
  fit: number;
  network: number;
  mask: number;
  draw: number;
  fps: number | null;
}

export interface Screen {
  /** A picture was drawn. */
  onResult: (result: Segmented, labels: LabelSet, speed: Speed) => void;
  onProblem: (error: Error) => void;
}

/** The share of the newest number in a running mean. */
const NEWEST = 0.1;

export class Pipeline {
  source: Source | undefined;
  /** What is on the screen. */
  result: Segmented | undefined;
  smooth = true;
  private engine: Engine | undefined;
  private labels: LabelSet | undefined;
  private readonly painter: Painter;
  private speed: Speed | undefined;
  private shownAt = 0;
  /** Counts the starts; work that belongs to an older one ends. */
  private run = 0;

  constructor(
    canvas: HTMLCanvasElement,
    private readonly look: Look,
    private readonly screen: Screen,
  ) {
    this.painter = new Painter(canvas);
  }

  /** Take another network for all that follows, and for what is on the screen. */
  useNetwork(engine: Engine, labels: LabelSet): void {
    this.engine?.close();
    this.engine = engine;
    this.labels = labels;
    this.start();
  }

  /** Other names for the classes of the network. */
  useLabels(labels: LabelSet): void {
    this.labels = labels;
    this.repaint();
  }

  /** Show a photo, a video or the camera in place of what is shown. */
  show(source: Source): void {
    if (this.source && 'stream' in this.source) this.source.stream.close();
    this.source = source;
    this.start();
  }

  /** Draw what is on the screen once more, in another look. */
  repaint(): void {
    if (!this.result || !this.labels) return;
    this.painter.paint(this.result, this.labels, this.look);
    this.screen.onResult(this.result, this.labels, this.speed!);
  }

  private async start(): Promise<void> {
    const run = ++this.run;
    const { source, engine } = this;
    if (!source || !engine) return;
    this.speed = undefined;
    const isCurrent = () => run === this.run;
    try {
      if ('photo' in source) await this.showPhoto(source.photo, engine, isCurrent);
      else await this.play(source.stream.video, engine, isCurrent);
    } catch (error) {
      if (isCurrent()) this.screen.onProblem(error as Error);
    }
  }

  private async showPhoto(photo: Blob, engine: Engine, isCurrent: () => boolean): Promise<void> {
    const picture = await decodePhoto(photo);
    if (!isCurrent()) return;
    const result = await engine.segment(picture, false, true);
    if (isCurrent()) this.draw(result, false);
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
      const answer = engine.segment(picture, this.smooth, fresh);
      fresh = false;
      return answer;
    };
    let next = segmentNext();
    while (isCurrent()) {
      const result = await next;
      if (!isCurrent()) return;
      next = segmentNext();
      next.catch(() => {}); // heard of when it is awaited, unless another source has come by then
      this.draw(result, true);
    }
  }

  private draw(result: Segmented, live: boolean): void {
    this.result?.picture.close();
    this.result = result;
    const begin = performance.now();
    this.painter.paint(result, this.labels!, this.look);
    const end = performance.now();
    const now = { ...result.ms, draw: end - begin, fps: live ? 1000 / (end - this.shownAt) : null };
    this.speed = live && this.speed ? mean(this.speed, now) : { ...now, fps: live ? 0 : null };
    this.shownAt = end;
    this.screen.onResult(result, this.labels!, this.speed);
  }
}

function mean(old: Speed, now: Speed): Speed {
  const mix = (a: number, b: number) => (a ? a + NEWEST * (b - a) : b);
  return {
    fit: mix(old.fit, now.fit),
    network: mix(old.network, now.network),
    mask: mix(old.mask, now.mask),
    draw: mix(old.draw, now.draw),
    fps: mix(old.fps ?? 0, now.fps ?? 0),
  };
}
