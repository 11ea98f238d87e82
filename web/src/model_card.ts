/** The card of a model: what it sees, how large and how good it is, and who may use it. */

import type { ModelData } from './engine';
import type { LabelSet } from './labels';
import type { ModelCard } from './models';
import { page } from './page';

export function showModelCard(model: ModelData, labels: LabelSet, card?: ModelCard): void {
  const facts: [string, string][] = [
    ['Sees', labels.names.filter((_, id) => id !== labels.background).join(', ')],
    ['Size', `${(model.data.length / 1e6).toFixed(1)} MB`],
  ];
  if (card) {
    facts.push(['Score', `mIoU ${(100 * card.miou).toFixed(1)} %: ${card.protocol}`]);
    facts.push(['Licence', card.licence]);
  } else {
    facts.push(['Score', 'not known here']);
    facts.push(['Licence', 'not known here: that of whoever gave you the file']);
  }
  page.modelFacts.replaceChildren(
    ...facts.map(([term, text]) => {
      const row = document.createElement('div');
      const name = document.createElement('dt');
      name.textContent = term;
      const value = document.createElement('dd');
      value.textContent = text;
      row.append(name, value);
      return row;
    }),
  );
  page.modelCard.hidden = false;
}
