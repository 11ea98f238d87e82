/** Record what is on the screen: the segmented camera, or a video as it plays. */

import { buttons } from './page';
import { download, stem } from './save';

const KINDS = ['video/mp4;codecs=avc1', 'video/webm;codecs=vp9', 'video/webm'];

let recorder: MediaRecorder | null = null;

export function canRecord(): boolean {
  return 'MediaRecorder' in window && 'captureStream' in HTMLCanvasElement.prototype;
}

/** Begin, or end and save. */
export function toggleRecording(canvas: HTMLCanvasElement, name: string): void {
  if (recorder) return stopRecording();
  const kind = KINDS.find((one) => MediaRecorder.isTypeSupported(one));
  if (!kind) throw new Error('This browser cannot record video.');
  const parts: Blob[] = [];
  const stream = canvas.captureStream();
  recorder = new MediaRecorder(stream, { mimeType: kind, videoBitsPerSecond: 6_000_000 });
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.onstop = () => {
    stream.getTracks().forEach((track) => track.stop());
    const ending = kind.startsWith('video/mp4') ? 'mp4' : 'webm';
    const type = kind.replace(/;.*/, '');
    download(new Blob(parts, { type }), `${stem(name)}.segmented.${ending}`);
  };
  recorder.start(1000); // in parts, so that a long one does not wait in the encoder
  show(true);
}

/** End a recording that runs, and save it; nothing where none does. */
export function stopRecording(): void {
  recorder?.stop();
  recorder = null;
  show(false);
}

function show(isRunning: boolean): void {
  for (const button of buttons('record')) {
    button.setAttribute('aria-pressed', String(isRunning));
    button.lastElementChild!.textContent = isRunning ? 'Stop and save' : 'Record';
  }
}
