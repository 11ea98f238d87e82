/** Save what is on the screen, under the names that `deeplab segment` gives. */

import type { Effect } from './draw';
import type { Shown } from './pipeline';
import { palettePng } from './png';

export async function savePicture(
  canvas: HTMLCanvasElement,
  name: string,
  effect: Effect,
): Promise<void> {
  const [kind, ending] = effect === 'cutout' ? ['image/png', 'png'] : ['image/jpeg', 'jpg'];
  const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, kind, 0.92));
  if (!blob) throw new Error('The picture could not be saved: it is too large for this browser.');
  download(blob, `${stem(name)}.${effect}.${ending}`);
}

export async function saveMask({ result, labels }: Shown, name: string): Promise<void> {
  download(await palettePng(result.mask, result, labels.colours), `${stem(name)}.mask.png`);
}

function stem(name: string): string {
  return name.replace(/\.[^.]*$/, '');
}

function download(blob: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
