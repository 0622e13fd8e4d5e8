/** Who closes a FOU port: the last one that uses it, if gretun opened it. */
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { type Ip, parseIp } from "../../../lib/addr.ts";
import { formatMark, type FouPlace, type Mark, openFouPort } from "../../../lib/links/mod.ts";
import { TunnelKernel } from "../../fakes/tunnel_kernel.ts";

const GRE: FouPlace = { port: 7777, family: 4, ipproto: 47 };
const REMOTE = parseIp("192.0.2.2");
const HUB: Mark = { by: "hub", port: 7777, id: "alice" };
const PEER: Mark = { by: "up", port: 7777, id: "ab".repeat(32) };

class Machine implements Disposable {
  readonly #kernel = new TunnelKernel();
  readonly rtnl = this.#kernel.openRtNetlink();
  readonly fou;

  constructor() {
    for (const name of ["fou", "ip_gre"]) this.#kernel.modules.add(name);
    this.fou = this.#kernel.openFou();
  }

  link(name: string, mark?: Mark, remote: Ip = REMOTE): void {
    this.rtnl.createLink({
      name,
      ...(mark ? { alias: formatMark(mark) } : {}),
      kind: "gre",
      tunnel: {
        remote,
        ttl: 64,
        pmtudisc: true,
        encap: { type: "fou", sport: 7777, dport: 7777, csum: true },
      },
    });
  }

  get ports(): number[] {
    return this.fou.ports().map(({ port }) => port);
  }

  [Symbol.dispose](): void {
    this.rtnl[Symbol.dispose]();
    this.fou[Symbol.dispose]();
  }
}

Deno.test("openFouPort() closes the port that it opened, once", () => {
  using machine = new Machine();
  const port = openFouPort(machine, GRE, "--port");
  deepStrictEqual(machine.ports, [7777]);
  port[Symbol.dispose]();
  deepStrictEqual(machine.ports, []);
  port[Symbol.dispose]();
});

Deno.test("openFouPort() of one that an earlier run left closes it, too", () => {
  for (const mark of [undefined, HUB, PEER]) {
    using machine = new Machine();
    machine.fou.add({ ...GRE, type: "direct" });
    if (mark) machine.link("t0", mark);
    const port = openFouPort(machine, GRE, "--port");
    if (mark) machine.rtnl.deleteLink("t0");
    port[Symbol.dispose]();
    deepStrictEqual(machine.ports, []);
  }
});

Deno.test("a port stays while a link of anybody uses it", () => {
  const marks = [HUB, PEER, { by: "create", port: 7777, opened: true } as const, undefined];
  for (const mark of marks) {
    using machine = new Machine();
    const port = openFouPort(machine, GRE, "--port");
    machine.link("t0", mark);
    port[Symbol.dispose]();
    deepStrictEqual(machine.ports, [7777], JSON.stringify(mark));
  }
});

Deno.test("a port that others opened stays, whether their tunnels do or not", () => {
  using machine = new Machine();
  machine.fou.add({ ...GRE, type: "direct" });
  machine.link("theirs");
  const port = openFouPort(machine, GRE, "--port");
  machine.rtnl.deleteLink("theirs");
  port[Symbol.dispose]();
  deepStrictEqual(machine.ports, [7777]);
});

Deno.test("a port for another protocol is refused, and stays", () => {
  using machine = new Machine();
  using _ipip = openFouPort(machine, { ...GRE, ipproto: 4 }, "--port");
  throws(() => openFouPort(machine, GRE, "--fou-port"), {
    message: "cannot open UDP port 7777: another FOU port has it",
    hint: "Choose another one with --fou-port, or look with: ss -ulpn 'sport = :7777'",
  });
  strictEqual(machine.ports.length, 1);
});
