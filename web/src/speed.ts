/** The numbers: milliseconds of each step, frames per second. */

import { page } from './page';
import type { Speed } from './pipeline';

const STEPS = ['fit', 'network', 'mask', 'draw'] as const;

export function showSpeed(speed: Speed): void {
  const total = STEPS.reduce((sum, step) => sum + speed[step], 0);
  for (const step of STEPS) {
    const ms = speed[step];
    const number = document.getElementById(`ms-${step}`)!;
    number.textContent = ms.toFixed(ms < 10 ? 1 : 0);
    number.dataset.ms = String(ms); // unrounded, for whoever measures
    page.split.querySelector<HTMLElement>(`.${step}`)!.style.flexGrow = String(ms / total);
  }
  page.rate.hidden = speed.fps === null;
  page.rate.textContent = speed.fps ? `${speed.fps.toFixed(speed.fps < 10 ? 1 : 0)} frames/s` : '…';
}
