/** Programs of links, with processes in memory: who is started, told what, and ended. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { type ProgramOptions, Programs } from "../../../lib/hub/programs/program.ts";
import { MARK_VARIABLE } from "../../../lib/hub/world.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";
import { MemoryMachine } from "../../fakes/world.ts";

const STATE_FILE = "hub-7788.programs";

class Run {
  readonly clock = new VirtualClock();
  readonly machine = new MemoryMachine({ clock: this.clock, seed: 1 });
  readonly failed: string[] = [];

  get stateDir() {
    return this.machine.world().openStateDir("/run/gretun");
  }

  programs(options: Partial<ProgramOptions> = {}): Programs {
    return new Programs({
      ...{ argv: ["daemon", "--now"], graceMs: 5000, stateFile: STATE_FILE },
      onFailed: (name, why) => this.failed.push(`${name} ${why}`),
      ...options,
    }, { ...this.machine.world(), stateDir: this.stateDir });
  }

  /** What is on its way is done. */
  async settle(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve));
  }
}

Deno.test("a program runs with its link, and knows what it is told", async () => {
  const run = new Run();
  const { processes } = run.machine;
  const programs = run.programs({ onUp: "echo up", onDown: "echo down" });
  programs.up("alice", { TUN_DEV_NAME: "hub0" });
  programs.up("alice", { TUN_DEV_NAME: "hub0" });
  strictEqual(processes.started.length, 1, "one a link");
  const [daemon] = processes.started;
  deepStrictEqual(daemon!.argv, ["daemon", "--now"]);
  strictEqual(daemon!.env.TUN_DEV_NAME, "hub0");
  strictEqual(programs.pid("alice"), daemon!.pid);
  programs.down("alice", { TUN_DEV_NAME: "hub0" });
  await run.settle();
  deepStrictEqual(processes.commands.map(({ command }) => command), [
    ...["echo up", "echo up", "echo down"],
  ]);
  deepStrictEqual(daemon!.signals, ["SIGTERM"]);
  strictEqual(programs.pid("alice"), undefined);
});

Deno.test("a stubborn program is killed after its grace time", async () => {
  const run = new Run();
  run.machine.processes.stubborn.add("daemon");
  const programs = run.programs({ graceMs: 300 });
  programs.up("alice", {});
  await run.clock.until(programs.close());
  deepStrictEqual(run.machine.processes.started[0]!.signals, ["SIGTERM", "SIGKILL"]);
  strictEqual(Math.ceil(run.clock.nowMs() / 100), 3);
});

Deno.test("failures are told: an exit code, and a program that cannot be started", async () => {
  const run = new Run();
  run.machine.processes.exitCodes.set("daemon", 3).set("missing", undefined);
  run.programs().up("alice", {});
  run.programs({ argv: ["missing"] }).up("bob", {});
  await run.settle();
  deepStrictEqual(run.failed.sort(), [
    "alice ended with code 3",
    "bob cannot be started: no such program",
  ]);
});

Deno.test("what a killed run left is ended by the next one", async () => {
  const run = new Run();
  run.programs().up("alice", {});
  const [left] = run.machine.processes.started;
  const next = run.programs();
  await run.clock.until(next.endLeftovers());
  deepStrictEqual(left!.signals, ["SIGTERM"]);
  strictEqual(run.stateDir.read(STATE_FILE), undefined);
});

const PLANTED: [string, (own: { startTime: string; mark: string }) => unknown][] = [
  ["another start time", (own) => ({ ...own, startTime: "1" })],
  ["another mark", (own) => ({ ...own, mark: "00" })],
  ["no mark, as earlier versions wrote", ({ startTime }) => ({ startTime })],
  ["an empty mark", (own) => ({ ...own, mark: "" })],
];
for (const [name, plant] of PLANTED) {
  Deno.test(`nothing is killed for a state file with ${name}`, async () => {
    const run = new Run();
    const { processes } = run.machine;
    processes.spawn(["innocent"], { [MARK_VARIABLE]: "01" });
    const [{ pid, startTime }] = processes.started as [typeof processes.started[number]];
    const planted = [{ pid, ...plant({ startTime, mark: "01" }) as object }];
    run.stateDir.write(STATE_FILE, JSON.stringify(planted));
    await run.clock.until(run.programs().endLeftovers());
    deepStrictEqual(processes.started[0]!.signals, []);
  });
}

for (const text of ["", "{", "null", '{"pid":1}', "[null]", '[{"pid":-1,"startTime":"1"}]']) {
  Deno.test(`a state file that says ${JSON.stringify(text)} stops nothing`, async () => {
    const run = new Run();
    run.stateDir.write(STATE_FILE, text);
    await run.clock.until(run.programs().endLeftovers());
  });
}

Deno.test("a process that has got the number of a program that ended is left alone", async () => {
  const run = new Run();
  const { processes } = run.machine;
  processes.stubborn.add("daemon");
  const programs = run.programs();
  programs.up("alice", {});
  const [daemon] = processes.started;
  const closed = programs.close();
  await run.settle();
  // It ends, and its number goes to another program before anybody looks.
  daemon!.end(0);
  const other = { ...daemon!, startTime: "999", signals: [] as string[] };
  processes.running.set(daemon!.pid, other);
  await run.clock.until(closed);
  deepStrictEqual(other.signals, []);
});

Deno.test("a state file that cannot be read or written is said, and stops nothing", async () => {
  const run = new Run();
  const refuse = () => {
    throw new Error("read-only file system");
  };
  const stateDir = { path: "/run/gretun", read: refuse, write: refuse, remove: refuse };
  const programs = new Programs(
    { argv: ["daemon"], graceMs: 0, stateFile: STATE_FILE, onFailed: () => {} },
    { ...run.machine.world(), stateDir },
  );
  await programs.endLeftovers();
  programs.up("alice", {});
  await run.clock.until(programs.close());
  deepStrictEqual(run.machine.log.lines.filter(({ level }) => level === "warn").length >= 3, true);
});
