/** Label sets: which class id means what, and in which colour it is drawn. */

export type Colour = [red: number, green: number, blue: number];

export interface LabelSet {
  names: string[];
  colours: Colour[];
  /** The class that is left transparent; null where every pixel belongs to something. */
  background: number | null;
}

/** The first colours of the PASCAL VOC colour map: the id's bits dealt out to red, green, blue. */
export function vocColours(count: number): Colour[] {
  return Array.from({ length: count }, (_, id) => {
    const colour: Colour = [0, 0, 0];
    for (let bit = 0; bit < 8; bit++) {
      for (let channel = 0; channel < 3; channel++) {
        colour[channel]! |= ((id >> (3 * bit + channel)) & 1) << (7 - bit);
      }
    }
    return colour;
  });
}

/**
 * Return the label set in the text of a label file: one name per line, in the order of the ids.
 *
 * `known` are label sets with colours of their own (streets, for example); one with the same names
 * is taken as it is.
 */
export function readLabelFile(text: string, known: LabelSet[] = []): LabelSet {
  const names = text
    .replace(/^\ufeff/, '')
    .split(/\r\n|[\n\r]/)
    .map((line) => line.trim())
    .filter((line) => line);
  if (!names.length) throw new Error('The label file is empty; it needs one name per line.');
  if (names.length > 256) {
    throw new Error(`The label file has ${names.length} names; 256 is the most.`);
  }
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new Error(`The label file names '${twice}' twice.`);
  const same = known.find((set) => set.names.join('\n') === names.join('\n'));
  return same ?? { names, colours: vocColours(names.length), background: 0 };
}

/** Labels for a network that does not name its classes. */
export function numberedLabels(count: number): LabelSet {
  const names = Array.from({ length: count }, (_, id) => (id ? `class ${id}` : 'background'));
  return { names, colours: vocColours(count), background: 0 };
}
