/** Names whose server is slow, fails or is gone, in virtual time. */
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { parseIp } from "../../lib/addr.ts";
import { rememberingLookup } from "../../lib/lookup.ts";
import { VirtualClock } from "../fakes/virtual_clock.ts";

/** A name server. */
class Names {
  readonly clock = new VirtualClock();
  asked = 0;
  /** Absent: it fails. */
  ip: string | undefined = "192.0.2.1";
  delayMs = 10;
  readonly lookup = rememberingLookup(async () => {
    this.asked++;
    const { ip } = this;
    await this.clock.sleep(this.delayMs);
    if (ip === undefined) throw new Error("no such name");
    return [parseIp(ip)];
  }, this.clock);

  /** What the name is said to have, and after how long. */
  async look(): Promise<[ip: string, ms: number]> {
    const startMs = this.clock.nowMs();
    const [ip] = await this.clock.until(this.lookup("coord.example"));
    return [ip!, this.clock.nowMs() - startMs];
  }
}

Deno.test("a name has what its server says now", async () => {
  const names = new Names();
  deepStrictEqual(await names.look(), ["192.0.2.1", 10]);
  names.ip = "192.0.2.2";
  deepStrictEqual(await names.look(), ["192.0.2.2", 10]);
});

Deno.test("a name server that fails takes nothing away that was known", async () => {
  const names = new Names();
  await names.look();
  names.ip = undefined;
  deepStrictEqual(await names.look(), ["192.0.2.1", 10]);
  names.ip = "192.0.2.2";
  deepStrictEqual(await names.look(), ["192.0.2.2", 10]);
});

Deno.test("a slow name server is waited for where nothing is known, else for a moment", async () => {
  const names = new Names();
  names.delayMs = 11_000;
  deepStrictEqual(await names.look(), ["192.0.2.1", 11_000]);
  names.ip = "192.0.2.2";
  deepStrictEqual(await names.look(), ["192.0.2.1", 1_800]);
  // What nobody waited for is known when it has come.
  await names.clock.until(names.clock.sleep(11_000));
  deepStrictEqual(await names.look(), ["192.0.2.2", 1_800]);
});

Deno.test("who gives up early, and comes again, finds the answer to the first question", async () => {
  const names = new Names();
  names.delayMs = 11_000;
  const first = names.lookup("coord.example");
  await names.clock.until(names.clock.sleep(10_000));
  deepStrictEqual(await names.look(), ["192.0.2.1", 1_000]);
  strictEqual(names.asked, 1);
  deepStrictEqual(await first, ["192.0.2.1"]);
});

Deno.test("where nothing is known, a failure is one, for all who wait", async () => {
  const names = new Names();
  names.ip = undefined;
  const all = [names.lookup("a.example"), names.lookup("a.example")];
  const failed = Promise.all(all.map((each) => rejects(each, /no such name/)));
  await names.clock.until(failed);
  strictEqual(names.asked, 1);
});
