/** Which models there are: those shipped with the page, and those that somebody drops on it. */

import type { ModelData } from './engine';
import type { LabelSet } from './labels';
import type { Loading } from './load';
import type { Hints } from './understand';

/** What people read of a model before they choose it. */
export interface ModelCard {
  /** Mean intersection over union, 0..1, and on what it was measured. */
  miou: number;
  protocol: string;
  licence: string;
}

interface ModelFile {
  /** Relative to the page. */
  file: string;
  /** Part of the address, so that a browser keeps a file as long as it stays the same. */
  sha256: string;
  bytes?: number;
}

/** One entry of `models.json`, the list that stands next to the page. */
export interface ShippedModel extends ModelFile, Hints {
  /** For people: what it sees, how large it is. */
  title: string;
  /** The one for moving pictures. */
  live?: boolean;
  /** The same network with 16-bit weights, for graphics processors. */
  graphics?: ModelFile;
  card?: ModelCard;
}

export interface Catalogue {
  models: ShippedModel[];
  /** Label sets with colours of their own; dropped models with the same names get them. */
  labelSets: LabelSet[];
  /** What is known of public files, by their sha256. */
  knownFiles: Record<string, Hints & { card?: ModelCard }>;
  /** What else the host has for people. */
  links: { title: string; href: string }[];
}

/** Read `models.json`. A page that was only built has one too, in which nothing is listed. */
export async function readCatalogue(): Promise<Catalogue> {
  const response = await fetch('models.json').catch(() => {
    throw new Error(
      'The list of models could not be loaded: there is no connection to the host of this page. ' +
        'A .tflite of your own can be opened all the same.',
    );
  });
  if (!response.ok) throw new Error(`The list of models could not be loaded (${response.status}).`);
  const { models, label_sets: labelSets, known_files: knownFiles, links } = await response.json();
  return { models, labelSets, knownFiles, links: links ?? [] };
}

/**
 * Load a model that the page lists; `graphics` takes its file for graphics processors.
 *
 * Where the host has another file by now, because it got a new version while this page was open,
 * the list is read again and its file taken.
 */
export async function fetchModel(
  model: ShippedModel,
  graphics: boolean,
  loading: Loading,
): Promise<ModelData> {
  const fetched = await tryModel(model, graphics, loading);
  if (fetched) return fetched;
  const { models } = await readCatalogue();
  const newer = models.find(({ title }) => title === model.title);
  const again = newer && (await tryModel(newer, graphics, loading, '&again'));
  if (again) return Object.assign(model, newer) && again;
  throw new Error(
    `${model.title}: its host has another file than its list says. Reload the page; should it ` +
      'stay so, the host’s copy is damaged.',
  );
}

async function tryModel(
  { title, graphics: sibling, ...model }: ShippedModel,
  graphics: boolean,
  loading: Loading,
  suffix = '', // an address of its own, for which no older answer is kept
): Promise<ModelData | null> {
  const { file, sha256, bytes } = (graphics && sibling) || model;
  const address = `${file}?${sha256.slice(0, 16)}${suffix}`;
  const got = await loading.bytes(address, title, bytes ?? 0);
  // Without https there is no hash to compare with, and no service worker that kept an old file.
  if (got.sha256 !== null && got.sha256 !== sha256) return null;
  const { labels, mean, std } = model;
  return { name: title, data: got.bytes, hints: { labels, mean, std } };
}

/** Read a model that was dropped or picked. */
export async function readModel(
  file: File,
  { knownFiles }: Catalogue,
): Promise<{ model: ModelData; card: ModelCard | undefined }> {
  const data = new Uint8Array(await file.arrayBuffer());
  const { card, ...hints } = (crypto.subtle && knownFiles[await hash(data)]) || {};
  return { model: { name: file.name, data, hints }, card };
}

async function hash(data: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', data));
  return [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
