/**
 * Reading a YAML file with a place for every mistake. A value that is wrong is noted and reading goes on, so that its
 * author learns of all mistakes at once. What is not known is a mistake too: a misspelt key must not fall back to a
 * default silently. Aliases are refused, so a small file is a small tree.
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import { BlockferryError } from '../../errors.ts';
import { CONFIG_FAULTS_MAX } from '../../limits.ts';

interface Fault {
  readonly line: number;
  readonly column: number;
  readonly message: string;
}

/** All mistakes of one file. */
class Faults {
  readonly #lines: LineCounter;
  readonly #found: Fault[] = [];

  constructor(lines: LineCounter) {
    this.#lines = lines;
  }

  add(offset: number, message: string): void {
    const { line, col } = this.#lines.linePos(offset);
    this.#found.push({ line: Math.max(1, line), column: Math.max(1, col), message });
  }

  get inOrder(): readonly Fault[] {
    return [...this.#found].sort((a, b) => a.line - b.line || a.column - b.column);
  }
}

/** Reads the whole file. @throws CONFIG_INVALID with every mistake */
export function readConfigText<T>(text: string, path: string, read: (root: ConfigValue) => T): T {
  const lines = new LineCounter();
  const faults = new Faults(lines);
  const value = parse(text, path, lines, faults, read);
  const found = faults.inOrder;
  if (found.length === 0) return value as T;
  const told = found
    .slice(0, CONFIG_FAULTS_MAX)
    .map((fault) => `${path}:${fault.line}:${fault.column}: ${fault.message}`);
  const more = found.length - told.length;
  throw new BlockferryError('CONFIG_INVALID', [...told, ...(more > 0 ? [`and ${more} more`] : [])].join('\n'), {
    facts: { source: path, faults: found.length, line: found[0]!.line, column: found[0]!.column },
    hint: 'docs/agent.md lists every key',
  });
}

function parse<T>(
  text: string,
  path: string,
  lineCounter: LineCounter,
  faults: Faults,
  read: (root: ConfigValue) => T,
): T | undefined {
  let document: ReturnType<typeof parseDocument>;
  try {
    document = parseDocument(text, { lineCounter, prettyErrors: false });
  } catch (cause) {
    // The parser is recursive: what is nested a thousand deep is no configuration.
    throw new BlockferryError('CONFIG_INVALID', `${path}:1:1: cannot be read as YAML: ${(cause as Error).message}`, {
      cause,
      facts: { source: path },
    });
  }
  for (const { pos, message } of document.errors) faults.add(pos[0], lowerFirst(message));
  if (document.errors.length > 0) return undefined;
  return read(new ConfigValue(faults, document.contents as Node | null, 0, 'the file'));
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

/** One value of the file, and what it is called. */
export class ConfigValue {
  readonly #faults: Faults;
  readonly #node: Node | null;
  readonly #offset: number;
  readonly #name: string;

  constructor(faults: Faults, node: Node | null, offset: number, name: string) {
    this.#faults = faults;
    this.#node = node;
    this.#offset = node?.range?.[0] ?? offset;
    this.#name = name;
  }

  /** Notes a mistake at this value. */
  fail(what: string): undefined {
    this.#faults.add(this.#offset, `${this.#name} ${what}`);
    return undefined;
  }

  /** Its keys. One that is not in `known` is a mistake; `hints` says of some why. */
  map(known: readonly string[], hints: Readonly<Record<string, string>> = {}): ConfigMap {
    const values = new Map<string, ConfigValue>();
    const node = this.#node;
    if (isAlias(node)) this.fail('is an alias; write it out, or use "defaults"');
    else if (!isMap(node)) this.fail('must be a map of keys and values');
    else {
      for (const { key, value } of node.items) {
        const name = isScalar(key) ? String(key.value) : '';
        const offset = (key as Node | null)?.range?.[0] ?? this.#offset;
        if (!known.includes(name)) this.#faults.add(offset, unknownKey(name, known, hints));
        else values.set(name, new ConfigValue(this.#faults, value as Node | null, offset, `"${name}"`));
      }
    }
    return new ConfigMap(this, values);
  }

  /** Its elements. A single value stands for a list of one. */
  list(max: number): readonly ConfigValue[] {
    const node = this.#node;
    if (!isSeq(node)) return [this];
    if (node.items.length > max) this.fail(`has ${node.items.length} elements, at most ${max} are allowed`);
    return node.items
      .slice(0, max)
      .map((item) => new ConfigValue(this.#faults, item as Node | null, this.#offset, this.#name));
  }

  /** A text, number or true as it is written. */
  text(): string | undefined {
    const node = this.#node;
    if (isAlias(node)) return this.fail('is an alias; write it out, or use "defaults"');
    if (!isScalar(node) || node.value === null) return this.fail('must have a single value');
    const text = typeof node.value === 'string' ? node.value : (node.source ?? String(node.value));
    return text === '' ? this.fail('is empty') : text;
  }

  /** What `parse` makes of the text; a RangeError of it is the mistake. */
  parse<T>(parse: (text: string) => T): T | undefined {
    const text = this.text();
    if (text === undefined) return undefined;
    try {
      return parse(text);
    } catch (error) {
      if (error instanceof RangeError || error instanceof BlockferryError)
        return this.fail(`is wrong: ${error.message}`);
      throw error;
    }
  }

  oneOf<T extends string>(choices: readonly T[]): T | undefined {
    const text = this.text();
    if (text === undefined) return undefined;
    return choices.find((choice) => choice === text) ?? this.fail(`is "${text}", must be one of ${choices.join(', ')}`);
  }

  integer(min: number, max: number): number | undefined {
    return this.parse((text) => {
      const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
      if (value >= min && value <= max) return value;
      throw new RangeError(`"${text}" is no whole number from ${min} to ${max}`);
    });
  }

  /** Whether it is a map, so that a key may take a word or a map. */
  get isMap(): boolean {
    return isMap(this.#node);
  }
}

/** The keys of one map. */
export class ConfigMap {
  readonly #value: ConfigValue;
  readonly #values: ReadonlyMap<string, ConfigValue>;

  constructor(value: ConfigValue, values: ReadonlyMap<string, ConfigValue>) {
    this.#value = value;
    this.#values = values;
  }

  get(key: string): ConfigValue | undefined {
    return this.#values.get(key);
  }

  /** A key that must be there. */
  need(key: string): ConfigValue | undefined {
    return this.#values.get(key) ?? this.#value.fail(`lacks "${key}"`);
  }

  /** This map where it says something, `defaults` elsewhere. */
  over(defaults: ConfigMap | undefined): ConfigMap {
    return defaults ? new ConfigMap(this.#value, new Map([...defaults.#values, ...this.#values])) : this;
  }
}

function unknownKey(name: string, known: readonly string[], hints: Readonly<Record<string, string>>): string {
  const hint = hints[name];
  if (hint !== undefined) return `"${name}" is not allowed here: ${hint}`;
  const near = known.map((key) => ({ key, edits: distance(name, key) })).sort((a, b) => a.edits - b.edits)[0];
  const suggestion =
    near && near.edits <= Math.max(1, Math.floor(near.key.length / 3)) ? `; did you mean "${near.key}"?` : '';
  return `"${name.slice(0, 64)}" is not a known key${suggestion}`;
}

/** Letters to insert, remove or replace. */
function distance(a: string, b: string): number {
  if (a.length > 64) return a.length;
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
