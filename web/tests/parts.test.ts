import { describe, expect, it } from 'vitest';

import { readAddress } from '../src/address';
import { progressWords } from '../src/load';
import { keepAlone, objectAt, toggleObject } from '../src/objects';
import { readBytes } from '../src/read';
import { unzip } from '../src/zip';
import { zip } from '../src/zip_write';

// prettier-ignore
const MASK = Uint8Array.from([
  1, 1, 0, 1,
  0, 1, 0, 1,
  2, 0, 0, 1,
]);
const SIZE = { height: 3, width: 4 };

describe('objects', () => {
  it('are the connected pixels of one class', () => {
    expect(objectAt(MASK, SIZE, 0).sort((a, b) => a - b)).toEqual([0, 1, 5]);
    expect(objectAt(MASK, SIZE, 11).sort((a, b) => a - b)).toEqual([3, 7, 11]);
  });

  it('are dropped and taken back', () => {
    const dropped = toggleObject(null, MASK, SIZE, 5)!;
    expect([...dropped.keys()].filter((i) => dropped[i])).toEqual([0, 1, 5]);
    const both = toggleObject(dropped, MASK, SIZE, 8)!;
    expect(both[8]).toBe(1);
    expect(toggleObject(toggleObject(both, MASK, SIZE, 8), MASK, SIZE, 0)).toBeNull();
    const alone = keepAlone(MASK, SIZE, 7);
    expect([...alone.keys()].filter((i) => !alone[i])).toEqual([3, 7, 11]);
  });
});

describe('zip', () => {
  it('holds what was put in, under its name', async () => {
    const files = new Map([
      ['a.txt', new Blob(['one'])],
      ['größer.bin', new Blob([new Uint8Array(1000)])],
    ]);
    const read = await unzip(new Uint8Array(await (await zip(files)).arrayBuffer()));
    expect([...read.keys()]).toEqual(['a.txt', 'größer.bin']);
    expect(new TextDecoder().decode(read.get('a.txt'))).toBe('one');
    expect(read.get('größer.bin')!.length).toBe(1000);
  });
});

describe('the address', () => {
  it('names settings, and nothing that is not one', () => {
    expect(readAddress('#model=voc&look=blur&opacity=40&compare=side')).toEqual({
      model: 'voc',
      effect: 'blur',
      opacity: 40,
      compare: 'side',
    });
    expect(readAddress('#look=dance&opacity=x&threshold=400&background=red&compare=1')).toEqual({});
    expect(readAddress('')).toEqual({});
  });
});

describe('loading', () => {
  it('says how far it is, and how long it takes', () => {
    expect(progressWords(3_100_000, 11_900_000, 500)).toBe('3.1 of 11.9 MB');
    expect(progressWords(3_000_000, 12_000_000, 10_000)).toBe('3.0 of 12.0 MB, 30 s left');
  });

  it('fails in words', async () => {
    const nowhere = { address: 'http://127.0.0.1:1/', title: 'voc', total: 10 };
    await expect(readBytes(nowhere, () => {})).rejects.toThrow(/voc is not on this device yet/);
  });
});
