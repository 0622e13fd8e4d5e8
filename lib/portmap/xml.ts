/**
 * XML as gateways write it, which is often none: what is broken is read as far as it makes sense.
 * Names are in lower case and without a namespace prefix; attributes are skipped. Entities that a
 * document defines are never expanded.
 */
import { Parser } from "htmlparser2";
import { PortMapFormatError } from "./errors.ts";

export interface XmlElement {
  name: string;
  children: XmlElement[];
  /** The text directly in it, without white space around. */
  text: string;
}

/** Tags that are never closed nest; more than this is no description. */
const MAX_DEPTH = 64;

/** An element without a name that has all others in it. Throws {@link PortMapFormatError}. */
export function readXml(document: string): XmlElement {
  const top: XmlElement = { name: "", children: [], text: "" };
  const open = [top];
  const parser = new Parser({
    onopentagname(name) {
      if (open.length > MAX_DEPTH) throw new PortMapFormatError("XML that is nested too deep");
      const element: XmlElement = { name: localName(name), children: [], text: "" };
      open.at(-1)!.children.push(element);
      open.push(element);
    },
    onclosetag() {
      open.pop();
    },
    ontext(text) {
      open.at(-1)!.text += text;
    },
  }, { xmlMode: true });
  parser.end(document.replaceAll("\0", ""));
  trim(top);
  return top;
}

function trim(element: XmlElement): void {
  element.text = element.text.trim();
  element.children.forEach(trim);
}

function localName(name: string): string {
  return name.slice(name.lastIndexOf(":") + 1).toLowerCase();
}

/**
 * All elements of that name anywhere in it, in the order in which they begin: where a tag is not
 * closed, what follows it is taken for its content.
 */
export function findAll(element: XmlElement, name: string): XmlElement[] {
  return element.children.flatMap((child) => [
    ...(child.name === name.toLowerCase() ? [child] : []),
    ...findAll(child, name),
  ]);
}

/** The text of the first element of that name anywhere in it. */
export function textOf(element: XmlElement, name: string): string | undefined {
  return findAll(element, name)[0]?.text;
}
