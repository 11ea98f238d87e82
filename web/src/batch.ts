/** Many photos at once: each segmented as the page is set, all of them into one zip archive. */

import { Painter, type Look } from './draw';
import { hideNews, showNews } from './page';
import type { Pipeline } from './pipeline';
import { download, maskFile, pictureFile, stem } from './save';
import { decodePhoto } from './sources';
import { zip } from './zip_write';

/** Segment the photos; those that cannot be read are counted and named. */
export async function segmentMany(files: File[], pipeline: Pipeline, look: Look): Promise<void> {
  const canvas = document.createElement('canvas');
  const painter = new Painter(canvas);
  const results = new Map<string, Blob>();
  const problems: string[] = [];
  let stopped = false;
  for (const [i, file] of files.entries()) {
    showNews(`Photo ${i + 1} of ${files.length}: ${file.name}`, 'Stop', () => (stopped = true));
    try {
      const shown = await pipeline.segmentAside(await decodePhoto(file));
      painter.paint(shown.result, shown.labels, { ...look, dropped: null });
      const name = unused(file.name, results, look.effect);
      const { blob, file: picture } = await pictureFile(canvas, name, look.effect);
      results.set(picture, blob);
      const mask = await maskFile(shown);
      results.set(`${stem(name)}.${mask.ending}`, mask.blob);
      shown.result.picture.close();
    } catch (error) {
      problems.push((error as Error).message);
    }
    if (stopped) break;
  }
  hideNews();
  if (results.size) download(await zip(results), 'deeplab.zip');
  const done = results.size / 2;
  const left = files.length - done - problems.length;
  const words = `${done} of ${files.length} photos are in deeplab.zip, each with its mask.`;
  if (left) problems.push(`Stopped: ${left} were not looked at.`);
  showNews([words, ...problems].join(' '));
}

/** Two photos of the same name, from two folders, get two names. */
function unused(name: string, results: Map<string, Blob>, effect: string): string {
  const isTaken = (one: string) =>
    [...results.keys()].some((file) => file.startsWith(`${one}.${effect}.`));
  let own = stem(name);
  for (let n = 2; isTaken(own); n++) own = `${stem(name)}-${n}`;
  return `${own}.x`;
}
