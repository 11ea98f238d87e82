/** A video file segmented frame by frame, as long as it takes, with its sound: WebCodecs. */

import {
  BlobSource,
  BufferTarget,
  canEncodeVideo,
  Conversion,
  Input,
  MATROSKA,
  MP4,
  Mp4OutputFormat,
  Output,
  QTFF,
  WEBM,
  WebMOutputFormat,
  type VideoSample,
} from 'mediabunny';

import { Painter, type Look } from './draw';
import type { Pipeline } from './pipeline';

export interface ExportedVideo {
  blob: Blob;
  ending: 'mp4' | 'webm';
  /** What could not be taken over, in words. */
  lost: string[];
}

/**
 * Return the video with every frame drawn as the page is set.
 *
 * `onProgress` hears of the share that is done, 0..1; its answer false ends the work, and null is
 * returned.
 */
export async function exportVideo(
  file: Blob,
  pipeline: Pipeline,
  look: Look,
  onProgress: (done: number) => boolean,
): Promise<ExportedVideo | null> {
  const input = new Input({ source: new BlobSource(file), formats: [MP4, QTFF, WEBM, MATROSKA] });
  const isMp4 = await canEncodeVideo('avc');
  const target = new BufferTarget();
  const output = new Output({
    format: isMp4 ? new Mp4OutputFormat() : new WebMOutputFormat(),
    target,
  });
  const canvas = document.createElement('canvas');
  const painter = new Painter(canvas);
  const frame = new OffscreenCanvas(1, 1);
  const context = frame.getContext('2d')!;
  const colours = { ...look, dropped: null };
  let isFresh = true;
  const draw = async (sample: VideoSample) => {
    frame.width = sample.displayWidth;
    frame.height = sample.displayHeight;
    sample.draw(context, 0, 0, frame.width, frame.height);
    const shown = await pipeline.segmentAside(frame.transferToImageBitmap(), isFresh);
    isFresh = false;
    painter.paint(shown.result, shown.labels, colours);
    shown.result.picture.close();
    return canvas;
  };
  const conversion = await Conversion.init({
    input,
    output,
    video: { codec: isMp4 ? 'avc' : 'vp9', forceTranscode: true, process: draw },
  });
  if (!conversion.isValid) {
    throw new Error('This video is of a kind whose single frames this browser cannot read.');
  }
  let wasStopped = false;
  conversion.onProgress = (done) => {
    if (wasStopped || onProgress(done)) return;
    wasStopped = true;
    void conversion.cancel();
  };
  try {
    await conversion.execute();
  } catch (error) {
    if (wasStopped) return null;
    throw error;
  }
  const kind = isMp4 ? 'video/mp4' : 'video/webm';
  const lost = conversion.discardedTracks.map(
    ({ track }) => `Its ${track.type} track is left out.`,
  );
  const blob = new Blob([target.buffer!], { type: kind });
  return { blob, ending: isMp4 ? 'mp4' : 'webm', lost };
}
