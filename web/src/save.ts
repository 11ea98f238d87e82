/** Save, copy and share what is on the screen, under the names that `deeplab segment` gives. */

import type { Effect, Look } from './draw';
import { hideNews, showNews } from './page';
import type { Pipeline, Shown } from './pipeline';
import { palettePng } from './png';
import { masksTiff } from './tiff';

export async function savePicture(
  canvas: HTMLCanvasElement,
  name: string,
  effect: Effect,
): Promise<void> {
  const { blob, file } = await pictureFile(canvas, name, effect);
  download(blob, file);
}

export async function saveMask(shown: Shown, name: string): Promise<void> {
  const { blob, ending } = await maskFile(shown);
  download(blob, `${stem(name)}.${ending}`);
}

/** The picture as a file, and its name: a PNG where parts are transparent. */
export async function pictureFile(canvas: HTMLCanvasElement, name: string, effect: Effect) {
  const [kind, ending] = effect === 'cutout' ? ['image/png', 'png'] : ['image/jpeg', 'jpg'];
  return { blob: await encode(canvas, kind), file: `${stem(name)}.${effect}.${ending}` };
}

/** The mask as a file, and how its name ends; of classes that overlap a page for each. */
export async function maskFile({ result, labels }: Shown) {
  if (result.bits) {
    const blob = await masksTiff(result.bits, result, labels.names.length);
    return { blob, ending: 'masks.tif' };
  }
  return { blob: await palettePng(result.mask, result, labels.colours), ending: 'mask.png' };
}

/** Put the picture on the clipboard. */
export async function copyPicture(canvas: HTMLCanvasElement): Promise<void> {
  try {
    // The promise itself is handed over: some browsers forget the click while they wait.
    await navigator.clipboard.write([
      new ClipboardItem({ 'image/png': encode(canvas, 'image/png') }),
    ]);
  } catch (error) {
    throw new Error(`The picture could not be copied (${(error as Error).message}). Save it.`);
  }
  showNews('The picture is on the clipboard.');
}

/** Whether the device passes files on to other programs. */
export function canShare(): boolean {
  const file = new File([], 'a.png', { type: 'image/png' });
  return Boolean(navigator.canShare?.({ files: [file] }));
}

export async function sharePicture(
  canvas: HTMLCanvasElement,
  name: string,
  effect: Effect,
): Promise<void> {
  const { blob, file } = await pictureFile(canvas, name, effect);
  try {
    await navigator.share({ files: [new File([blob], file, { type: blob.type })] });
  } catch (error) {
    if ((error as Error).name !== 'AbortError') throw error; // somebody changed their mind
  }
}

/** Save a video file frame by frame; what plays meanwhile waits. */
export async function saveVideo(
  file: Blob,
  name: string,
  pipeline: Pipeline,
  look: Look,
): Promise<void> {
  let isStopped = false;
  const tell = (done: number) => {
    const words = `Segmenting ${name}: ${Math.floor(100 * done)} %`;
    showNews(words, 'Stop', () => (isStopped = true));
    return !isStopped;
  };
  tell(0);
  try {
    const { exportVideo } = await import('./video_export'); // large, and not always needed
    const video = await exportVideo(file, pipeline, look, tell);
    hideNews();
    if (!video) return;
    download(video.blob, `${stem(name)}.${look.effect}.${video.ending}`);
    showNews([`${name} is saved, frame by frame.`, ...video.lost].join(' '));
  } catch (error) {
    hideNews();
    throw new Error(`${name} could not be saved as a video (${(error as Error).message}).`);
  }
}

async function encode(canvas: HTMLCanvasElement, kind: string): Promise<Blob> {
  const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, kind, 0.92));
  if (!blob) throw new Error('The picture could not be saved: it is too large for this browser.');
  return blob;
}

export function stem(name: string): string {
  return name.replace(/\.[^.]*$/, '');
}

export function download(blob: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
