/** Where the values of a JSON text are, so that fuzzing can change them and leave it JSON. */

export type Span = readonly [from: number, to: number];

export interface JsonSpans {
  /** All but the whole. */
  values: Span[];
  keys: Span[];
  /** Members of objects and elements of lists, each with a comma of its own. */
  members: Span[];
}

const [QUOTE, COMMA, BACKSLASH] = [0x22, 0x2c, 0x5c];
const isOpening = (byte: number | undefined) => byte === 0x7b || byte === 0x5b;
const isClosing = (byte: number | undefined) => byte === 0x7d || byte === 0x5d;
const isSpace = (byte: number | undefined) => byte !== undefined && byte <= 0x20;

/** Undefined for what is no JSON. */
export function jsonSpans(text: Uint8Array): JsonSpans | undefined {
  try {
    JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
  } catch {
    return undefined;
  }
  const spans: JsonSpans = { values: [], keys: [], members: [] };
  let at = 0;
  const skipSpace = () => {
    while (isSpace(text[at])) at++;
  };
  const scalar = () => {
    if (text[at] === QUOTE) {
      at++;
      while (text[at] !== QUOTE) at += text[at] === BACKSLASH ? 2 : 1;
      return void at++;
    }
    while (at < text.length && !isSpace(text[at]) && text[at] !== COMMA && !isClosing(text[at])) {
      at++;
    }
  };
  const value = () => {
    skipSpace();
    const from = at;
    if (isOpening(text[at])) container(text[at++] === 0x7b);
    else scalar();
    spans.values.push([from, at]);
    skipSpace();
  };
  const container = (isObject: boolean) => {
    skipSpace();
    let from = at;
    let isFirst = true;
    while (!isClosing(text[at])) {
      if (isObject) {
        skipSpace();
        const key = at;
        scalar();
        spans.keys.push([key, at]);
        skipSpace();
        at++; // the colon
      }
      value();
      const hasNext = text[at] === COMMA;
      spans.members.push([from, isFirst && hasNext ? at + 1 : at]);
      isFirst = false;
      from = at;
      if (hasNext) at++;
    }
    at++;
  };
  value();
  spans.values.pop();
  return spans;
}
