/** The clients' directory: what is read, and when it is looked at again. */
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { ClientDirectory, readDirectory } from "../../../lib/hub/directory.ts";
import type { ClientFile } from "../../../lib/hub/clients.ts";
import { systemFiles } from "../../../lib/hub/system/files.ts";
import { VirtualClock } from "../../fakes/virtual_clock.ts";
import { MemoryMachine } from "../../fakes/world.ts";

const DIR = "/etc/gretun/clients";

/** A hub that takes every client but "refused". */
class Run implements Disposable {
  readonly clock = new VirtualClock();
  readonly machine = new MemoryMachine({ clock: this.clock, seed: 1 });
  readonly clients = new Map<string, ClientFile>();
  readonly log: string[] = [];
  readonly directory = new ClientDirectory(DIR, this.machine.world(), {
    known: (name) => this.clients.get(name),
    names: () => this.clients.keys(),
    added: (file) => {
      if (file.name === "refused") return "is not wanted";
      this.clients.set(file.name, file);
      this.log.push(`added ${file.name}`);
      return undefined;
    },
    removed: (name, why) => {
      this.clients.delete(name);
      this.log.push(`${why} ${name}`);
    },
    looked: () => this.log.push("looked"),
  });

  put(name: string, text = ""): void {
    this.machine.files.put(`${DIR}/${name}`, text);
  }

  [Symbol.dispose](): void {
    this.directory[Symbol.dispose]();
  }
}

Deno.test("clients come, change and go as their files do", async () => {
  using run = new Run();
  run.put("alice");
  run.directory.open();
  run.put("bob");
  run.put("alice", "address 10.0.0.2\n");
  await run.clock.until(run.clock.sleep(100));
  run.machine.files.delete(`${DIR}/bob`);
  await run.clock.until(run.clock.sleep(100));
  deepStrictEqual(run.log, [
    ...["added alice", "looked"],
    ...["changed alice", "added alice", "added bob", "looked"],
    ...["removed bob", "looked"],
  ]);
});

Deno.test("a pipe among the files is said and stops nobody", () => {
  using run = new Run();
  run.machine.files.putPipe(`${DIR}/pipe`);
  run.put("alice");
  run.put("refused");
  run.directory.open();
  deepStrictEqual([...run.clients.keys()], ["alice"]);
  deepStrictEqual(run.directory.problems, [
    `${DIR}/pipe: is no regular file`,
    `${DIR}/refused: is not wanted`,
  ]);
});

Deno.test("real pipes, devices and links to them are not opened", () => {
  const path = Deno.makeTempDirSync();
  new Deno.Command("mkfifo", { args: [`${path}/pipe`] }).outputSync();
  Deno.symlinkSync("/dev/zero", `${path}/zero`);
  Deno.symlinkSync(`${path}/nowhere`, `${path}/dangling`);
  Deno.mkdirSync(`${path}/directory`);
  Deno.writeTextFileSync(`${path}/alice`, "address 10.0.0.2\n");
  const { clients, problems } = readDirectory(systemFiles, path);
  Deno.removeSync(path, { recursive: true });
  deepStrictEqual(clients.map(({ name }) => name), ["alice"]);
  deepStrictEqual(problems, [
    `${path}/pipe: is no regular file`,
    `${path}/zero: is no regular file`,
  ]);
});

Deno.test("strangers make it look at once, then once a second", async () => {
  using run = new Run();
  run.machine.files.canWatch = false;
  run.directory.open();
  strictEqual(run.machine.log.lines[0]!.level, "warn", "not watched");
  await run.clock.until(run.clock.sleep(2000));
  const looks = () => run.log.filter((line) => line === "looked").length;
  run.put("alice");
  run.directory.lookAgain();
  await run.clock.until(run.clock.sleep(1));
  deepStrictEqual([looks(), run.clients.size], [2, 1]);
  for (let i = 0; i < 100; i++) {
    run.directory.lookAgain();
    await run.clock.until(run.clock.sleep(20));
  }
  strictEqual(looks(), 4);
});

Deno.test("a directory that cannot be read stops a start, and changes nothing later", () => {
  using run = new Run();
  const { files } = run.machine;
  files.names = () => {
    throw new Error("permission denied");
  };
  throws(() => run.directory.open(), /cannot read the clients' directory/);
  run.clients.set("alice", { name: "alice", routes: [] });
  run.directory.reload();
  strictEqual(run.clients.size, 1);
});
