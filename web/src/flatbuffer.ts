/** Reading flatbuffers: the format of a TFLite model, and of the metadata inside it. */

/** One table. Positions that lead outside the data throw a RangeError. */
export class Table {
  private readonly fields: number;
  private readonly size: number;

  constructor(
    readonly view: DataView,
    readonly position: number,
  ) {
    this.fields = position - view.getInt32(position, true);
    this.size = view.getUint16(this.fields, true);
  }

  static root(view: DataView): Table {
    return new Table(view, view.getUint32(0, true));
  }

  /** The position of a field's value; undefined where it is left out. */
  at(field: number): number | undefined {
    const slot = 4 + 2 * field;
    if (slot >= this.size) return undefined;
    const offset = this.view.getUint16(this.fields + slot, true);
    return offset ? this.position + offset : undefined;
  }

  int8(field: number): number {
    const at = this.at(field);
    return at === undefined ? 0 : this.view.getInt8(at);
  }

  uint8(field: number): number {
    const at = this.at(field);
    return at === undefined ? 0 : this.view.getUint8(at);
  }

  int32(field: number): number {
    const at = this.at(field);
    return at === undefined ? 0 : this.view.getInt32(at, true);
  }

  table(field: number): Table | undefined {
    const at = this.at(field);
    return at === undefined ? undefined : new Table(this.view, this.follow(at));
  }

  tables(field: number): Table[] {
    const { start, length } = this.vector(field, 4);
    return Array.from({ length }, (_, i) => new Table(this.view, this.follow(start + 4 * i)));
  }

  ints(field: number): number[] {
    const { start, length } = this.vector(field, 4);
    return Array.from({ length }, (_, i) => this.view.getInt32(start + 4 * i, true));
  }

  longs(field: number): number[] {
    const { start, length } = this.vector(field, 8);
    return Array.from({ length }, (_, i) => Number(this.view.getBigInt64(start + 8 * i, true)));
  }

  floats(field: number): number[] {
    const { start, length } = this.vector(field, 4);
    return Array.from({ length }, (_, i) => this.view.getFloat32(start + 4 * i, true));
  }

  bytes(field: number): Uint8Array {
    const { start, length } = this.vector(field, 1);
    return new Uint8Array(this.view.buffer, this.view.byteOffset + start, length);
  }

  text(field: number): string {
    return new TextDecoder().decode(this.bytes(field));
  }

  /** Where the elements of a list begin, and how many there are; a length of 0 where left out. */
  vector(field: number, bytesEach: number): { start: number; length: number } {
    const at = this.at(field);
    if (at === undefined) return { start: 0, length: 0 };
    const start = this.follow(at);
    const length = this.view.getUint32(start, true);
    if (start + 4 + length * bytesEach > this.view.byteLength) {
      throw new RangeError(`a list of ${length} elements in ${this.view.byteLength} bytes`);
    }
    return { start: start + 4, length };
  }

  private follow(position: number): number {
    return position + this.view.getUint32(position, true);
  }
}
