import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import { canonicalJson, JsonReader } from '../../src/replica/json.ts';

const read = (value: unknown): JsonReader => new JsonReader(value, 'thing.json', 'REPLICA_ROOT');

/** The path of the field and the rule that it broke. */
function faultOf(attempt: () => unknown): readonly [unknown, unknown] {
  try {
    attempt();
  } catch (error) {
    if (isBlockferryError(error, 'REPLICA_ROOT')) return [error.facts['field'], error.facts['rule']];
    throw error;
  }
  return expect.unreachable('no error');
}

describe('canonical JSON', () => {
  it('has sorted keys, no blanks and no undefined fields', () => {
    expect(canonicalJson({ b: [1, { d: null, c: 'x\n' }], a: true, u: undefined })).toBe(
      '{"a":true,"b":[1,{"c":"x\\n","d":null}]}',
    );
  });

  it('is the same for equal content in any order, and reads back as it', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (object) => {
        const turned = Object.fromEntries(Object.entries(object).reverse());
        const text = canonicalJson(object as never);
        expect(canonicalJson(turned as never)).toBe(text);
        expect(canonicalJson(JSON.parse(text))).toBe(text);
      }),
    );
  });
});

describe('a JSON reader', () => {
  it('names the field that is wrong by its path', () => {
    const json = read({ a: [{ b: 1 }] });
    const b = json.field('a').list(9)[0]!.field('b');
    expect(faultOf(() => b.string())).toEqual(['a.0.b', 'is text of at most 1024 characters']);
    expect(faultOf(() => json.field('c'))).toEqual(['', 'has a field "c"']);
    expect(faultOf(() => b.field('x'))).toEqual(['a.0.b', 'is an object']);
  });

  it.each([
    ['{', 'a syntax error'],
    ['', 'nothing'],
    ['{} {}', 'two documents'],
  ])('refuses %j: %s', (text) => {
    expect(() => JsonReader.parse(Buffer.from(text), 's', 'REPLICA_ROOT')).toThrow(/s: is not JSON/);
  });

  it('refuses bytes that are not UTF-8', () => {
    expect(() => JsonReader.parse(Buffer.from([0x22, 0xff, 0x22]), 's', 'REPLICA_ROOT')).toThrow(/is not JSON/);
  });

  it('takes integers of their range only', () => {
    expect([0, 7].map((n) => read(n).integer(0, 7))).toEqual([0, 7]);
    for (const value of [-1, 8, 1.5, '1', null, Number.NaN, 2 ** 53]) {
      expect(() => read(value).integer(0, 7)).toThrow(/integer from 0 to 7/);
    }
    expect(() => read(2 ** 53).integer(0, Number.MAX_VALUE)).toThrow();
  });

  it('takes hexadecimal of one spelling and the exact length', () => {
    expect(read('00ff').hex(2)).toEqual(Buffer.from([0, 255]));
    for (const text of ['00FF', '00f', '00ff00', '0x00', '00fg', '']) expect(() => read(text).hex(2)).toThrow();
  });

  it('takes base64 of one spelling', () => {
    expect(read('AAH/').base64(3)).toEqual(Buffer.from([0, 1, 255]));
    for (const text of ['AAH_', 'AAH/\n', 'AAH', 'AB==', ' AAH/', 'AAH/AAH/']) {
      expect(() => read(text).base64(3), text).toThrow();
    }
  });

  it('takes lists, text, choices and truth values only as such', () => {
    expect(read(['a']).list(1)[0]!.string()).toBe('a');
    expect(() => read([1, 2]).list(1)).toThrow(/at most 1/);
    expect(() => read({ length: 0 }).list(1)).toThrow();
    expect(() => read('abc').string(2)).toThrow();
    expect(read('b').oneOf(['a', 'b'])).toBe('b');
    expect(() => read('toString').oneOf(['a', 'b'])).toThrow(/one of a, b/);
    expect([read(true).boolean(), read(false).boolean()]).toEqual([true, false]);
    expect(() => read(0).boolean()).toThrow();
    expect(read({}).optional('x')).toBeUndefined();
  });

  it('finds no field in what objects inherit', () => {
    expect(read({}).optional('toString')).toBeUndefined();
    expect(read({}).optional('__proto__')).toBeUndefined();
  });
});
