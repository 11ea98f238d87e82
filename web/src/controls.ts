/** The settings: how a picture is drawn and compared, kept in the address. */

import { COMPARISONS, writeAddress, type Comparison, type Settings } from './address';
import type { Effect } from './draw';
import { look } from './look';
import type { NetworkChoice } from './network_choice';
import { page, showProblem } from './page';
import type { Pipeline } from './pipeline';
import { startPicture } from './results';
import { compare, showBefore } from './view';

const radios = () => [...document.querySelectorAll<HTMLInputElement>('[name="effect"]')];
let onChange = () => {};

/** The settings as controls show them. */
export const settings = {
  /** Set the controls, as if somebody had. */
  apply(wanted: Partial<Settings>): void {
    if (wanted.effect) radios().find(({ value }) => value === wanted.effect)!.checked = true;
    if (wanted.opacity !== undefined) page.opacity.value = String(wanted.opacity);
    if (wanted.threshold !== undefined) page.threshold.value = String(wanted.threshold);
    if (wanted.background) page.colour.value = wanted.background;
    if (wanted.compare) page.compare.value = wanted.compare;
    if (wanted.background) look.background = wanted.background;
    readControls();
  },

  nextComparison(): void {
    const next = (COMPARISONS.indexOf(page.compare.value as Comparison) + 1) % COMPARISONS.length;
    page.compare.value = COMPARISONS[next]!;
    page.compare.dispatchEvent(new Event('change'));
  },
};

function readControls(): void {
  look.effect = radios().find(({ checked }) => checked)!.value as Effect;
  look.opacity = Number(page.opacity.value) / 100;
  look.threshold = Number(page.threshold.value) / 100;
  page.opacityValue.textContent = `${page.opacity.value} %`;
  page.thresholdValue.textContent = look.threshold ? `${page.threshold.value} %` : 'any';
  for (const row of document.querySelectorAll<HTMLElement>('[data-for]')) {
    row.hidden = !row.dataset.for!.split(' ').includes(look.effect);
  }
  page.screen.dataset.effect = look.effect;
  if (page.screen.dataset.compare !== page.compare.value) compare(page.compare.value as Comparison);
  onChange();
}

export function startControls(pipeline: Pipeline, networks: NetworkChoice): void {
  startPicture(pipeline);
  onChange = () => {
    const wantsConfidence = look.effect === 'confidence' || look.threshold > 0;
    pipeline.want({
      confidence: wantsConfidence,
      shares: ['cutout', 'blur', 'replace'].includes(look.effect),
    });
    if (wantsConfidence && !networks.hasConfidence) {
      showProblem('This network gives classes alone; it does not tell how sure it is.');
    }
    pipeline.repaint();
    if (pipeline.shown) showBefore(pipeline.shown.result.picture);
    save(networks);
  };
  for (const control of [page.opacity, page.threshold]) {
    control.addEventListener('input', readControls);
  }
  page.colour.addEventListener('input', () => {
    look.background = page.colour.value;
    readControls();
  });
  page.compare.addEventListener('change', readControls);
  page.model.addEventListener('change', () => save(networks));
  page.smooth.addEventListener('change', () => (pipeline.smooth = page.smooth.checked));
  for (const radio of radios()) {
    radio.addEventListener('change', () => {
      readControls();
      radio.parentElement!.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    });
  }
}

function save(networks: NetworkChoice): void {
  writeAddress({
    model: networks.chosenTitle,
    effect: look.effect,
    opacity: Number(page.opacity.value),
    threshold: Number(page.threshold.value),
    background: page.colour.value,
    compare: page.compare.value as Comparison,
  });
}
