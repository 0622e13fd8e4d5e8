/**
 * To be imported before packages of Node's older kind: they ask for Node's own modules by `require`,
 * which there is none of in a program that is bundled.
 */
import { createRequire } from "node:module";

Object.assign(globalThis, { require: createRequire(import.meta.url) });
