/** Which models there are: those shipped with the page, and those that somebody drops on it. */

import type { ModelData } from './engine';
import type { LabelSet } from './labels';
import type { Hints } from './understand';

/** One entry of `models.json`, the list that stands next to the page. */
interface ShippedModel extends Hints {
  /** For people: what it sees, how large it is. */
  title: string;
  /** Relative to the page. */
  file: string;
  /** Part of the address, so that a browser keeps a file as long as it stays the same. */
  sha256: string;
}

export interface Catalogue {
  models: ShippedModel[];
  /** Label sets with colours of their own; dropped models with the same names get them. */
  labelSets: LabelSet[];
  /** What is known of public files, by their sha256. */
  knownFiles: Record<string, Hints>;
}

/** Read `models.json`. A page that was only built has one too, in which nothing is listed. */
export async function readCatalogue(): Promise<Catalogue> {
  const response = await fetch('models.json');
  if (!response.ok) throw new Error(`The list of models could not be loaded (${response.status}).`);
  const { models, label_sets: labelSets, known_files: knownFiles } = await response.json();
  return { models, labelSets, knownFiles };
}

export async function fetchModel({
  title,
  file,
  sha256,
  ...hints
}: ShippedModel): Promise<ModelData> {
  const response = await fetch(`${file}?${sha256.slice(0, 16)}`);
  if (!response.ok)
    throw new Error(`${title}: the model could not be loaded (${response.status}).`);
  return { name: title, data: new Uint8Array(await response.arrayBuffer()), hints };
}

/** Read a model that was dropped or picked. */
export async function readModel(file: File, { knownFiles }: Catalogue): Promise<ModelData> {
  const data = await file.arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', data));
  const sha256 = [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return { name: file.name, data: new Uint8Array(data), hints: { ...knownFiles[sha256] } };
}
