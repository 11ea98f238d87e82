/** The settings in the page's address, behind "#": whoever copies it gets the same page. */

import { EFFECTS, type Effect } from './draw';

/** How the picture before is shown: not, under a line that moves, beside. */
export const COMPARISONS = ['off', 'slider', 'side'] as const;
export type Comparison = (typeof COMPARISONS)[number];

export interface Settings {
  model: string | null;
  effect: Effect;
  /** Percent. */
  opacity: number;
  threshold: number;
  /** "#rrggbb". */
  background: string;
  compare: Comparison;
}

/** The settings that an address names; what it does not name, or names wrongly, is left out. */
export function readAddress(hash: string): Partial<Settings> {
  const values = new URLSearchParams(hash.replace(/^#/, ''));
  const settings: Partial<Settings> = {};
  const model = values.get('model');
  if (model) settings.model = model;
  const effect = EFFECTS.find((one) => one === values.get('look'));
  if (effect) settings.effect = effect;
  const compare = COMPARISONS.find((one) => one === values.get('compare'));
  if (compare) settings.compare = compare;
  for (const key of ['opacity', 'threshold'] as const) {
    const number = Number(values.get(key) ?? NaN);
    if (number >= 0 && number <= 100) settings[key] = number;
  }
  const background = values.get('background');
  if (background && /^#[0-9a-f]{6}$/i.test(background)) settings.background = background;
  return settings;
}

/** Write the settings that are not the usual ones into the address; no step in the history. */
export function writeAddress(settings: Settings): void {
  const usual = { effect: 'overlay', opacity: 55, threshold: 0, background: '#00b140' };
  const values = new URLSearchParams();
  if (settings.model) values.set('model', settings.model);
  if (settings.effect !== usual.effect) values.set('look', settings.effect);
  if (settings.opacity !== usual.opacity) values.set('opacity', String(settings.opacity));
  if (settings.threshold !== usual.threshold) values.set('threshold', String(settings.threshold));
  if (settings.background !== usual.background) values.set('background', settings.background);
  if (settings.compare !== 'off') values.set('compare', settings.compare);
  const hash = values.toString();
  history.replaceState(null, '', hash ? `#${hash}` : location.pathname + location.search);
}
