/** As much of JSON Schema (2020-12) as our schemas use: a value fits, or it is told where it does not. */
import { ok } from "node:assert/strict";

interface Schema {
  $ref?: string;
  $defs?: Record<string, Schema>;
  type?: "object" | "array" | "string" | "number" | "integer" | "boolean";
  const?: unknown;
  enum?: unknown[];
  pattern?: string;
  minimum?: number;
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
  items?: Schema;
}

const KEYWORDS = [
  ...["$schema", "$id", "title", "description", "$ref", "$defs", "type", "const", "enum"],
  ...["pattern", "minimum", "properties", "required", "additionalProperties", "items"],
];

export function schemaOf(path: string): Schema {
  return JSON.parse(Deno.readTextFileSync(path));
}

/** Throws with the place of what does not fit. */
export function fits(root: Schema, value: unknown): void {
  check(root, value, "$");

  function check(schema: Schema, value: unknown, at: string): void {
    const unknown = Object.keys(schema).find((keyword) => !KEYWORDS.includes(keyword));
    ok(unknown === undefined, `the schema has a keyword that is not checked: ${unknown}`);
    if (schema.$ref !== undefined) {
      return check(root.$defs![schema.$ref.replace("#/$defs/", "")]!, value, at);
    }
    const shown = `${at}: ${JSON.stringify(value)}`;
    if (schema.const !== undefined) ok(schema.const === value, shown);
    if (schema.enum) ok(schema.enum.includes(value), shown);
    if (schema.type) ok(isOfType(schema.type, value), `${shown} is no ${schema.type}`);
    if (schema.pattern) ok(new RegExp(schema.pattern, "u").test(value as string), shown);
    if (schema.minimum !== undefined) ok((value as number) >= schema.minimum, shown);
    if (schema.items) {
      (value as unknown[]).forEach((each, i) => check(schema.items!, each, `${at}[${i}]`));
    }
    if (schema.type === "object") checkObject(schema, value as Record<string, unknown>, at);
  }

  function checkObject(schema: Schema, value: Record<string, unknown>, at: string): void {
    const { properties = {}, required = [], additionalProperties = true } = schema;
    for (const name of required) ok(name in value, `${at} has no ${name}`);
    for (const [name, each] of Object.entries(value)) {
      const known = properties[name] ?? additionalProperties;
      ok(known !== false, `${at} has ${name}, of which the schema knows nothing`);
      if (known !== true) check(known, each, `${at}.${name}`);
    }
  }
}

function isOfType(type: NonNullable<Schema["type"]>, value: unknown): boolean {
  switch (type) {
    case "object":
      return typeof value === "object" && value !== null && !Array.isArray(value);
    case "array":
      return Array.isArray(value);
    case "integer":
      return Number.isInteger(value);
    default: {
      const found: string = typeof value;
      return found === type;
    }
  }
}
