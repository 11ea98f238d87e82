/** The legend: which labels are in the picture, how much of it each covers, and its colour. */

import type { Segmented } from './engine';
import type { LabelSet } from './labels';
import { page } from './page';

export interface Entry {
  id: number;
  name: string;
  colour: string;
  share: number;
}

/** The labels that are present, the largest share first; the background is not listed. */
export function legendEntries({ counts, mask }: Segmented, labels: LabelSet): Entry[] {
  const entries = labels.names.map((name, id) => ({
    id,
    name,
    colour: `rgb(${labels.colours[id]!.join(' ')})`,
    share: counts[id]! / mask.length,
  }));
  return entries
    .filter(({ id, share }) => share > 0 && id !== labels.background)
    .sort((a, b) => b.share - a.share || a.id - b.id);
}

/** A share for people: "12 %", "< 1 %". */
export function percent(share: number): string {
  return share < 0.01 ? '< 1 %' : `${Math.round(100 * share)} %`;
}

/** Show the entries; ticking one off adds its class to `hidden`, and calls `onChange`. */
export function showLegend(entries: Entry[], hidden: Set<number>, onChange: () => void): void {
  const rows = new Map<string, HTMLLIElement>();
  for (const row of page.legend.children)
    rows.set((row as HTMLLIElement).dataset.key!, row as HTMLLIElement);
  page.legendEmpty.hidden = entries.length > 0;
  page.legendEmpty.textContent = 'Nothing that this network knows.';
  const wanted = entries.map((entry) => {
    const key = `${entry.id} ${entry.name}`;
    const row = rows.get(key) ?? newRow(entry, key, hidden, onChange);
    const share = row.querySelector('.share')!;
    share.textContent = percent(entry.share);
    row.querySelector<HTMLElement>('.bar')!.style.width = `${100 * entry.share}%`;
    return row;
  });
  // Rows that stay are not touched, so that the keyboard's focus stays too.
  const current = [...page.legend.children];
  if (wanted.length !== current.length || wanted.some((row, i) => row !== current[i])) {
    const focused = document.activeElement;
    page.legend.replaceChildren(...wanted);
    if (focused instanceof HTMLElement && page.legend.contains(focused)) focused.focus();
  }
}

function newRow(entry: Entry, key: string, hidden: Set<number>, onChange: () => void) {
  const row = document.createElement('li');
  row.dataset.key = key;
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
  row.append(label);
  return row;
}
