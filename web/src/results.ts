/** What is said and done about the picture on the screen: legend, numbers, objects. */

import { isDrawn } from './draw';
import { clearLegend, legendEntries, percent, showLegend } from './legend';
import { look } from './look';
import { hasClass } from './overlapping';
import { keepAlone, toggleObject } from './objects';
import { buttons, page } from './page';
import type { Pipeline, Shown, Source } from './pipeline';
import { pixelAt, startProbe } from './probe';
import { showSpeed } from './speed';
import { showBefore, startView } from './view';

/** Numbers and legend of moving pictures change this often, so that they can be read. */
const READABLE_MS = 250;
/** Screen readers hear of other labels in moving pictures at most this often. */
const SPOKEN_MS = 5000;

let shownAt = 0;
let spokenAt = 0;

/** Another picture or network: nothing is known of it yet. */
export function forgetResults(): void {
  shownAt = spokenAt = 0;
  look.dropped = null;
  page.dropped.hidden = true;
  clearLegend();
}

/** A picture has come, and is on the screen before anything is known of it. */
export function showSource(source: Source): void {
  forgetResults();
  const size =
    'picture' in source
      ? source.picture
      : { width: source.stream.video.videoWidth, height: source.stream.video.videoHeight };
  page.screen.dataset.state = 'picture' in source ? 'photo' : 'live';
  if (size.height) page.screen.style.setProperty('--ratio', String(size.width / size.height));
  page.rate.hidden = true;
  page.status.textContent = '';
  if ('picture' in source) showBefore(source.picture);
}

export function showResult({ result, labels, speed }: Shown, pipeline: Pipeline): void {
  const isLive = speed.fps !== null;
  page.screen.dataset.state = isLive ? 'live' : 'photo';
  page.screen.style.setProperty('--ratio', String(result.width / result.height));
  showBefore(result.picture);
  for (const action of ['save-picture', 'save-mask', 'copy', 'share']) {
    for (const button of buttons(action)) button.disabled = false;
  }
  const now = performance.now();
  if (isLive && now - shownAt < READABLE_MS) return;
  shownAt = now;
  showSpeed(speed);
  const entries = legendEntries(result, labels);
  showLegend(entries, look.hidden, isLive, () => pipeline.repaint());
  if (isLive && now - spokenAt < SPOKEN_MS) return;
  spokenAt = now;
  const found = entries.map(({ name, share }) => `${name} ${percent(share)}`).join(', ');
  const text = found ? `Found: ${found}.` : 'Nothing found that this network knows.';
  const labelsOnly = isLive ? text.replace(/ (< )?\d+ %/g, '') : text;
  if (page.status.textContent !== labelsOnly) page.status.textContent = labelsOnly;
}

/** Drop or keep the object at a pixel; `alone` drops all others; no pixel brings all back. */
export function onPicture(pipeline: Pipeline, pixel: [number, number] | null, alone = false): void {
  const { shown } = pipeline;
  if (!shown || shown.speed.fps !== null || shown.result.bits) return;
  const { result, labels } = shown;
  if (!pixel) {
    look.dropped = null;
  } else {
    const at = pixel[1] * result.width + pixel[0];
    if (!isDrawn(result.mask[at]!, labels, look.hidden)) return;
    look.dropped = alone
      ? keepAlone(result.mask, result, at)
      : toggleObject(look.dropped, result.mask, result, at);
  }
  page.dropped.hidden = !look.dropped;
  page.dropped.firstElementChild!.textContent = 'Some objects are dropped.';
  pipeline.repaint();
}

/** Listen to pointer, finger and keys on the picture. */
export function startPicture(pipeline: Pipeline): void {
  startView((event) => onPicture(pipeline, pixelAt(event), event.shiftKey));
  startProbe(
    (x, y) => {
      if (!pipeline.shown) return null;
      const { result, labels, speed } = pipeline.shown;
      const at = y * result.width + x;
      const { bits } = result;
      if (bits) {
        const there = labels.names.filter((_, id) => hasClass(bits, id, at));
        return there.join(' + ') || 'nothing';
      }
      const id = result.mask[at]!;
      const name = labels.names[id] ?? `class ${id}`;
      const sure = result.confidence ? `, ${Math.round(result.confidence[at]! / 2.55)} %` : '';
      if (id === labels.background) return name + sure;
      if (look.hidden.has(id)) return `${name} (not shown)`;
      return look.dropped?.[at] && speed.fps === null ? `${name} (dropped)` : name + sure;
    },
    (pixel, alone) => onPicture(pipeline, pixel, alone),
  );
}
