/** The legend: which labels are in the picture, how much of it each covers, and its colour. */

import type { Segmented } from './engine';
import type { LabelSet } from './labels';
import { displayColours } from './palette';
import { page } from './page';

export interface Entry {
  id: number;
  name: string;
  colour: string;
  share: number;
}

/** The labels that are present, the largest share first; the background is not listed. */
export function legendEntries({ counts, mask }: Segmented, labels: LabelSet): Entry[] {
  const colours = displayColours(labels);
  const entries = labels.names.map((name, id) => ({
    id,
    name,
    colour: `rgb(${colours[id]!.join(' ')})`,
    share: counts[id]! / mask.length,
  }));
  return entries
    .filter(({ id, share }) => share > 0 && id !== labels.background)
    .sort((a, b) => b.share - a.share || a.id - b.id);
}

/** A share for people: "12 %", "< 1 %". */
export function percent(share: number): string {
  if (!share) return '–';
  return share < 0.01 ? '< 1 %' : `${Math.round(100 * share)} %`;
}

/**
 * Show the entries; ticking one off adds its class to `hidden`, and calls `onChange`.
 *
 * While pictures move (`keepsOrder`) a row stays where it is, also when its class has gone, and new
 * ones come last: nothing jumps away under a finger.
 */
export function showLegend(
  entries: Entry[],
  hidden: Set<number>,
  keepsOrder: boolean,
  onChange: () => void,
): void {
  const current = [...page.legend.children] as HTMLLIElement[];
  const rows = new Map(current.map((row) => [row.dataset.key!, row]));
  page.legendEmpty.hidden = entries.length > 0 || (keepsOrder && current.length > 0);
  page.legendEmpty.textContent = 'Nothing that this network knows.';
  const present = new Map(
    entries.map((entry) => {
      const key = `${entry.id} ${entry.name}`;
      return [key, { entry, row: rows.get(key) ?? newRow(entry, key, hidden, onChange) }];
    }),
  );
  for (const { entry, row } of present.values()) showShare(row, entry.share);
  let wanted = [...present.values()].map(({ row }) => row);
  if (keepsOrder) {
    for (const row of current) if (!present.has(row.dataset.key!)) showShare(row, 0);
    wanted = [...current, ...wanted.filter((row) => !current.includes(row))];
  }
  // Rows that stay are not touched, so that the keyboard's focus stays too.
  if (wanted.length !== current.length || wanted.some((row, i) => row !== current[i])) {
    const focused = document.activeElement;
    page.legend.replaceChildren(...wanted);
    if (focused instanceof HTMLElement && page.legend.contains(focused)) focused.focus();
  }
}

/** Forget the rows: another source, another network. */
export function clearLegend(): void {
  page.legend.replaceChildren();
}

function showShare(row: HTMLLIElement, share: number): void {
  row.querySelector('.share')!.textContent = percent(share);
  row.querySelector<HTMLElement>('.bar')!.style.width = `${100 * share}%`;
  row.classList.toggle('gone', share === 0);
}

function newRow(entry: Entry, key: string, hidden: Set<number>, onChange: () => void) {
  const row = document.createElement('li');
  row.dataset.key = key;
  row.dataset.id = String(entry.id);
  const label = document.createElement('label');
  const tick = document.createElement('input');
  tick.type = 'checkbox';
  tick.checked = !hidden.has(entry.id);
  tick.style.setProperty('--colour', entry.colour);
  tick.addEventListener('change', () => {
    if (tick.checked) hidden.delete(entry.id);
    else hidden.add(entry.id);
    onChange();
  });
  const name = document.createElement('span');
  name.className = 'name';
  name.textContent = entry.name;
  const share = document.createElement('span');
  share.className = 'share';
  const track = document.createElement('span');
  track.className = 'track';
  const bar = document.createElement('span');
  bar.className = 'bar';
  bar.style.background = entry.colour;
  track.append(bar);
  label.append(tick, name, share, track);
  const only = document.createElement('button');
  only.type = 'button';
  only.className = 'only';
  only.textContent = 'Only';
  only.setAttribute('aria-label', `Only ${entry.name}`);
  only.addEventListener('click', () => {
    showOnly(entry.id, hidden);
    onChange();
  });
  row.append(label, only);
  return row;
}

/** Tick one class alone; all of them where it is alone already. */
function showOnly(id: number, hidden: Set<number>): void {
  const rows = [...page.legend.children] as HTMLLIElement[];
  const isAlone = rows.every(
    (row) => row.dataset.id === String(id) || hidden.has(Number(row.dataset.id)),
  );
  for (const row of rows) {
    const other = Number(row.dataset.id);
    const shown = isAlone || other === id;
    if (shown) hidden.delete(other);
    else hidden.add(other);
    row.querySelector('input')!.checked = shown;
  }
}
