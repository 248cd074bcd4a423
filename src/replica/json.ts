/**
 * Reading untrusted JSON: bounded by the caller, then checked field by field. `JsonReader` walks one parsed value and
 * throws the error that its owner names, with the path of the field that is wrong. Writing is canonical: keys sorted,
 * no blanks, so that equal content has equal bytes and can be hashed.
 */
import { BlockferryError, type ErrorCode } from '../errors.ts';

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json | undefined };

/** Canonical JSON: sorted keys, no blanks; undefined fields are left out. */
export function canonicalJson(value: Json): string {
  if (Array.isArray(value)) return `[${value.map((v) => canonicalJson(v as Json)).join(',')}]`;
  if (typeof value === 'object' && value !== null) {
    const object = value as { readonly [key: string]: Json | undefined };
    const fields = Object.keys(object)
      .filter((key) => object[key] !== undefined)
      .sort()
      .map((key) => `${JSON.stringify(key)}:${canonicalJson(object[key] as Json)}`);
    return `{${fields.join(',')}}`;
  }
  return JSON.stringify(value);
}

/** One value inside a parsed document. */
export class JsonReader {
  readonly #value: unknown;
  readonly #path: string;
  readonly #source: string;
  readonly #code: ErrorCode;

  constructor(value: unknown, source: string, code: ErrorCode, path = '') {
    this.#value = value;
    this.#source = source;
    this.#code = code;
    this.#path = path;
  }

  /** Parses UTF-8 bytes; a syntax error becomes the owner's error. */
  static parse(bytes: Uint8Array, source: string, code: ErrorCode): JsonReader {
    try {
      const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
      return new JsonReader(JSON.parse(text), source, code);
    } catch (cause) {
      throw new BlockferryError(code, `${source}: is not JSON`, { cause, facts: { source, rule: 'is JSON' } });
    }
  }

  /** A field of an object, which may be missing. */
  optional(key: string): JsonReader | undefined {
    const object = this.#object();
    const value = Object.hasOwn(object, key) ? object[key] : undefined;
    return value === undefined ? undefined : this.#at(value, key);
  }

  /** A field of an object, which must be there. */
  field(key: string): JsonReader {
    return this.optional(key) ?? this.fail(`has a field "${key}"`);
  }

  /** The elements of an array of at most `max`. */
  list(max: number): readonly JsonReader[] {
    const value = this.#value;
    if (!Array.isArray(value) || value.length > max) return this.fail(`is a list of at most ${max}`);
    return value.map((v, i) => this.#at(v, String(i)));
  }

  string(maxLength = 1024): string {
    const value = this.#value;
    return typeof value === 'string' && value.length <= maxLength
      ? value
      : this.fail(`is text of at most ${maxLength} characters`);
  }

  /** An integer in [min, max]. */
  integer(min: number, max: number): number {
    const value = this.#value;
    return typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max
      ? value
      : this.fail(`is an integer from ${min} to ${max}`);
  }

  boolean(): boolean {
    const value = this.#value;
    return typeof value === 'boolean' ? value : this.fail('is true or false');
  }

  /** Hexadecimal text of exactly `lengthBytes` bytes. */
  hex(lengthBytes: number): Uint8Array {
    const text = this.string(lengthBytes * 2);
    return text.length === lengthBytes * 2 && /^[0-9a-f]*$/.test(text)
      ? Buffer.from(text, 'hex')
      : this.fail(`is ${lengthBytes} bytes in hexadecimal`);
  }

  /** Base64 of at most `maxBytes` bytes. */
  base64(maxBytes: number): Uint8Array {
    const text = this.string(Math.ceil(maxBytes / 3) * 4);
    const bytes = Buffer.from(text, 'base64');
    return bytes.toString('base64') === text ? bytes : this.fail('is base64');
  }

  oneOf<T extends string>(choices: readonly T[]): T {
    const value = this.string();
    return choices.find((c) => c === value) ?? this.fail(`is one of ${choices.join(', ')}`);
  }

  /** Throws: the value at this path breaks `rule`. */
  fail(rule: string): never {
    const where = this.#path === '' ? 'the document' : this.#path;
    throw new BlockferryError(this.#code, `${this.#source}: ${where} breaks the rule "${rule}"`, {
      facts: { source: this.#source, field: this.#path, rule },
    });
  }

  #object(): Readonly<Record<string, unknown>> {
    const value = this.#value;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return this.fail('is an object');
    return value as Readonly<Record<string, unknown>>;
  }

  #at(value: unknown, key: string): JsonReader {
    return new JsonReader(value, this.#source, this.#code, this.#path === '' ? key : `${this.#path}.${key}`);
  }
}
