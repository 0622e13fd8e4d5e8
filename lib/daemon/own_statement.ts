/** What this node signs of itself for its peers. */
import { type Signed, signStatement, type Statement } from "../coord/api.ts";
import type { Sign } from "../ed25519.ts";

export interface OwnStatementOptions {
  sign: Sign;
  /** As the coordinator has it. */
  wallMs: () => number;
  /** The sequence number of the last statement of all, also of earlier runs. */
  last: { sequence: number };
}

export class OwnStatement {
  readonly #options: OwnStatementOptions;
  #made: { of: string; signed: Promise<Signed> } | undefined;

  constructor(options: OwnStatementOptions) {
    this.#options = options;
  }

  /** The same as before as long as nothing has changed. */
  of(said: Omit<Statement, "sequence">): Promise<Signed> {
    const text = JSON.stringify(said);
    if (this.#made?.of !== text) this.#made = { of: text, signed: this.#sign(said) };
    return this.#made.signed;
  }

  #sign(said: Omit<Statement, "sequence">): Promise<Signed> {
    const { sign, wallMs, last } = this.#options;
    last.sequence = Math.max(last.sequence + 1, Math.floor(wallMs()));
    return signStatement({ ...said, sequence: last.sequence }, sign);
  }
}
