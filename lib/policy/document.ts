/** JSON with comments, whose values know the line that they stand on. */
import * as parser from "jsonc-parser";
import { GretunError } from "../errors.ts";

/** Deno loads the package's older form, whose exports are one, and "deno bundle" the newer one. */
const jsonc = "default" in parser ? parser.default as typeof parser : parser;

/** The file is no policy. */
export class PolicyError extends GretunError {
  override name = "PolicyError";
  readonly line: number;

  constructor(line: number, reason: string) {
    super(`line ${line}: ${reason}`, "Correct the file; docs/policy.md says what it may have");
    this.line = line;
  }
}

export class Value {
  /** As users find it: "rules[2].from". */
  readonly #path: string;
  readonly #text: string;
  readonly #node: parser.Node;

  private constructor(text: string, node: parser.Node, path: string) {
    this.#text = text;
    this.#node = node;
    this.#path = path;
  }

  /** Throws {@link PolicyError}. */
  static of(text: string): Value {
    const errors: parser.ParseError[] = [];
    const root = jsonc.parseTree(text, errors, { allowTrailingComma: true });
    const [error] = errors;
    if (error) {
      const reason = jsonc.printParseErrorCode(error.error).replace(/(?<=.)[A-Z]/g, " $&");
      throw new PolicyError(lineOf(text, error.offset), reason.toLowerCase());
    }
    if (!root) throw new PolicyError(1, "the file is empty");
    return new Value(text, root, "");
  }

  get line(): number {
    return lineOf(this.#text, this.#node.offset);
  }

  fail(reason: string): never {
    throw new PolicyError(this.line, this.#path === "" ? reason : `${this.#path}: ${reason}`);
  }

  string(): string {
    const { type, value } = this.#node;
    return type === "string" ? value : this.fail("not a string");
  }

  list(): Value[] {
    if (this.#node.type !== "array") this.fail("not a list");
    return (this.#node.children ?? []).map((node, i) =>
      new Value(this.#text, node, `${this.#path}[${i}]`)
    );
  }

  /** One string is a list of one. */
  strings(): Value[] {
    const values = this.#node.type === "string" ? [this as Value] : this.list();
    if (values.length === 0) this.fail("empty");
    for (const value of values) value.string();
    return values;
  }

  /** By name, in their order. */
  fields(): Map<string, Value> {
    if (this.#node.type !== "object") this.fail("not an object");
    const fields = new Map<string, Value>();
    for (const { children: [key, node] = [] } of this.#node.children ?? []) {
      const name = String(key!.value);
      const path = this.#path === "" ? name : `${this.#path}.${name}`;
      const value = new Value(this.#text, node!, path);
      if (fields.has(name)) value.fail("given twice");
      fields.set(name, value);
    }
    return fields;
  }

  /** An object with no other fields than these. */
  record<const K extends string>(names: readonly K[]): Partial<Record<K, Value>> {
    const fields = this.fields();
    for (const [name, value] of fields) {
      if (!names.some((known) => known === name)) {
        value.fail(`unknown; known are ${names.join(", ")}`);
      }
    }
    return Object.fromEntries(fields) as Partial<Record<K, Value>>;
  }
}

function lineOf(text: string, offset: number): number {
  return text.slice(0, offset).split("\n").length;
}
