/**
 * What a `.tflite` file says about itself: normalisation and labels.
 *
 * Files that `deeplab export` writes carry a card of our own, a line of JSON. Others may have the
 * standard metadata, a second flatbuffer inside the model; numbers below are the positions of
 * fields in its tables. Source: tensorflow_lite_support/metadata/metadata_schema.fbs.
 */

import { Table } from './flatbuffer';
import type { Fit } from './geometry';
import { readLabelFile, type LabelSet } from './labels';
import type { TfliteFile } from './tflite';
import { unzip } from './zip';

const CARD = 'deeplab';
const CARD_VERSION = 1;
/** Of networks that older programs would misread. */
const SPECIAL_VERSION = 2;
/** What `deeplab optimise` writes. */
const RECORD = 'deeplab_optimised';
const ENTRY = 'TFLITE_METADATA';
const AXIS_LABELS = 2; // AssociatedFileType
const VALUE_LABELS = 3;
const NORMALIZATION = 1; // ProcessUnitOptions

export interface Metadata {
  /** Per channel or one for all, in units of 0..255; empty where the file says nothing. */
  mean: number[];
  std: number[];
  labels: LabelSet | null;
  /** What only the card says. */
  fit?: Fit;
  alignCorners?: boolean;
  temperature?: number;
  /** How probable each class must be to be there, where they overlap. */
  thresholds?: number[];
}

/** Return what a file says about itself; null where it says nothing. */
export async function readMetadata(file: TfliteFile, known: LabelSet[]): Promise<Metadata | null> {
  const card = file.entries.get(CARD);
  if (card) return readCard(file.name, new TextDecoder().decode(card));
  const data = file.entries.get(ENTRY);
  const alignCorners = readRecord(file);
  if (!data)
    return alignCorners === undefined ? null : { mean: [], std: [], labels: null, alignCorners };
  return { ...(await readStandard(file, data, known)), alignCorners };
}

/** How the logits of an optimised file lie on its frame; undefined where nothing says it. */
function readRecord(file: TfliteFile): boolean | undefined {
  const record = file.entries.get(RECORD);
  if (!record) return undefined;
  try {
    return JSON.parse(new TextDecoder().decode(record)).align_corners ?? undefined;
  } catch {
    throw new Error(`The record in the metadata of ${file.name} is damaged.`);
  }
}

/** Throws for networks of ours whose pictures this page cannot show. */
export function refuseSpecial(file: TfliteFile): void {
  const { name } = file;
  let card;
  try {
    card = JSON.parse(new TextDecoder().decode(file.entries.get(CARD)));
  } catch {
    return; // there is none, or readCard says so
  }
  const { input } = card ?? {};
  if (input?.bands) {
    throw new Error(
      `${name} takes pictures with ${input.mean?.length} channels of ${input.bands.kind}, and this ` +
        'page shows photos (RGB) only: deeplab segment runs it.',
    );
  }
}

function readCard(name: string, text: string): Metadata {
  try {
    const card = JSON.parse(text);
    const { version, input, labels, align_corners: alignCorners, temperature = 1 } = card;
    if (version !== CARD_VERSION && version !== SPECIAL_VERSION)
      throw new Error(`version ${version}, this page is too old`);
    const { names, colours, background } = labels;
    const { mean, std, fit } = input;
    if (!(temperature > 0)) throw new Error(`temperature is ${temperature}`);
    const thresholds = labels.overlap ? readThresholds(card.thresholds, names.length) : undefined;
    const known = { names, colours, background };
    return { mean, std, fit, alignCorners, temperature, thresholds, labels: known };
  } catch (error) {
    throw new Error(`What ${name} says of itself cannot be read (${(error as Error).message}).`);
  }
}

function readThresholds(values: unknown, classes: number): number[] {
  const isShare = (value: unknown) => typeof value === 'number' && value > 0 && value < 1;
  if (!Array.isArray(values) || values.length !== classes || !values.every(isShare)) {
    throw new Error(`thresholds are ${JSON.stringify(values)}`);
  }
  return values as number[];
}

async function readStandard(
  file: TfliteFile,
  data: Uint8Array,
  known: LabelSet[],
): Promise<Metadata> {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let mean: number[] = [];
  let std: number[] = [];
  let labelFile: string | undefined;
  try {
    if (new TextDecoder().decode(data.subarray(4, 8)) !== 'M001') throw new Error('no M001');
    const model = Table.root(view);
    const graph = model.tables(3)[0];
    const input = graph?.tables(2)[0];
    const output = graph?.tables(3)[0];
    for (const unit of input?.tables(4) ?? []) {
      const options = unit.table(1);
      if (unit.uint8(0) === NORMALIZATION && options && !mean.length) {
        mean = options.floats(0);
        std = options.floats(1);
      }
    }
    const files = (output?.tables(6) ?? []).filter((f) =>
      [AXIS_LABELS, VALUE_LABELS].includes(f.uint8(2)),
    );
    // Of several, the one without a locale.
    labelFile = (files.find((f) => !f.text(3)) ?? files[0])?.text(0);
  } catch (error) {
    throw new Error(`The metadata of ${file.name} is damaged (${(error as Error).message}).`);
  }
  const labels = labelFile ? await readLabels(file, labelFile, known) : null;
  return { mean, std, labels };
}

async function readLabels(file: TfliteFile, name: string, known: LabelSet[]): Promise<LabelSet> {
  const files = await unzip(file.data);
  const content = files.get(name);
  if (!content) {
    throw new Error(
      `The metadata of ${file.name} names the label file '${name}', which is not packed into ` +
        'the model.',
    );
  }
  return readLabelFile(new TextDecoder().decode(content), known);
}
