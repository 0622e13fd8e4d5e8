/**
 * As much of XML 1.0 as gateways use: elements and text. Names lose their namespace prefix,
 * attributes are skipped. A document type, which could define entities, is refused.
 */
import { PortMapFormatError } from "./errors.ts";

export interface XmlElement {
  name: string;
  children: XmlElement[];
  /** The text directly in it, without white space around. */
  text: string;
}

const MAX_DEPTH = 32;
/** Of what begins at an offset: one thing that a document is made of. */
const TOKEN = new RegExp(
  [
    /<!--[^]*?-->/, // comment
    /<\?[^]*?\?>/, // declaration, processing instruction
    /<!\[CDATA\[(?<cdata>[^]*?)\]\]>/,
    /<\/(?<end>[\w.:-]+)\s*>/,
    /<(?<start>[\w.:-]+)(?:\s+[\w.:-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*\s*(?<empty>\/?)>/,
    /(?<text>[^<]+)/,
  ].map(({ source }) => source).join("|"),
  "y",
);
const ENTITIES: Record<string, string> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

/** The root element. Throws {@link PortMapFormatError} and nothing else. */
export function parseXml(document: string): XmlElement {
  const top: XmlElement = { name: "", children: [], text: "" };
  const open = [top];
  const token = new RegExp(TOKEN);
  const text = document.replace(/^\ufeff/, "");
  while (token.lastIndex < text.length) {
    const at = token.lastIndex;
    const match = token.exec(text);
    if (!match) throw new PortMapFormatError(`XML that is not understood at offset ${at}`);
    readToken(match.groups!, open);
  }
  if (open.length !== 1 || top.children.length !== 1 || top.text.trim() !== "") {
    throw new PortMapFormatError("XML that is not one whole element");
  }
  return top.children[0]!;
}

/** `open`: the elements that have begun and not ended, the outermost first. */
function readToken(groups: Record<string, string | undefined>, open: XmlElement[]): void {
  const inner = open.at(-1)!;
  const { start, empty, end, text, cdata } = groups;
  if (start !== undefined) {
    if (open.length > MAX_DEPTH) throw new PortMapFormatError("XML that is nested too deep");
    const element: XmlElement = { name: localName(start), children: [], text: "" };
    inner.children.push(element);
    if (!empty) open.push(element);
  } else if (end !== undefined) {
    if (open.length === 1 || localName(end) !== inner.name) {
      throw new PortMapFormatError(`XML with a </${end}> too many`);
    }
    inner.text = inner.text.trim();
    open.pop();
  } else {
    inner.text += cdata ?? unescaped(text ?? "");
  }
}

function localName(name: string): string {
  return name.slice(name.indexOf(":") + 1);
}

function unescaped(text: string): string {
  return text.replace(/&([^;]{0,10});?/g, (whole, name: string) => {
    const number = /^#(?:x([0-9a-fA-F]{1,6})|([0-9]{1,7}))$/.exec(name);
    const code = number ? parseInt(number[1] ?? number[2]!, number[1] ? 16 : 10) : undefined;
    const found = code === undefined ? ENTITIES[name] : character(code);
    if (found === undefined || !whole.endsWith(";")) {
      throw new PortMapFormatError(`XML with an unknown entity: ${JSON.stringify(whole)}`);
    }
    return found;
  });
}

function character(code: number): string | undefined {
  return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : undefined;
}

/** The first child of that name. */
export function child(element: XmlElement | undefined, name: string): XmlElement | undefined {
  return element?.children.find((each) => each.name === name);
}

/** By a way of names. */
export function descend(element: XmlElement, ...names: string[]): XmlElement | undefined {
  return names.reduce<XmlElement | undefined>(child, element);
}
