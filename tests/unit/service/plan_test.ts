/** What installing and removing services does, from what is there. */
import { deepStrictEqual, doesNotMatch, match, ok, strictEqual } from "node:assert/strict";
import {
  configPath,
  installSteps,
  type Present,
  type Step,
  stepText,
  uninstallSteps,
  unitName,
  unitText,
} from "../../../lib/service/mod.ts";

/** A host that keeps what steps do. */
class FakeHost implements Present {
  readonly files = new Map<string, string>([["/tmp/gretun", "program"]]);
  readonly users = new Set<string>();
  /** Units that run a program of before. */
  readonly older = new Set<string>();

  isSame(step: Step & { kind: "copy" | "write" }): boolean {
    return step.kind === "write"
      ? this.files.get(step.path) === step.text
      : this.files.get(step.to) === this.files.get(step.from);
  }

  exists(path: string): boolean {
    return [...this.files.keys()].some((file) => file === path || file.startsWith(path + "/"));
  }

  runsOlder(unit: string): boolean {
    return this.older.has(unit);
  }

  hasUser(name: string): boolean {
    return this.users.has(name);
  }

  apply(steps: readonly Step[]): string[] {
    for (const step of steps) {
      if (step.kind === "copy") this.files.set(step.to, this.files.get(step.from)!);
      else if (step.kind === "write") this.files.set(step.path, step.text);
      else if (step.kind === "remove") {
        for (const file of [...this.files.keys()]) {
          if (file === step.path || file.startsWith(step.path + "/")) this.files.delete(file);
        }
      } else if (step.command[0] === "useradd") this.users.add("gretun");
      else if (step.command[0] === "userdel") this.users.delete("gretun");
    }
    return steps.map(stepText);
  }
}

const OPTIONS = {
  kind: "up",
  program: "/tmp/gretun",
  config: ["coordinator http://203.0.113.1:8443"],
  start: true,
  others: [],
} as const;

Deno.test("install makes user, configuration, program and units, and starts the service", () => {
  const host = new FakeHost();
  const texts = host.apply(installSteps(OPTIONS, host));
  deepStrictEqual(texts.slice(1), [
    "write /etc/gretun/up.conf",
    "install -m 0755 /tmp/gretun /usr/local/bin/gretun",
    "write /etc/systemd/system/gretun.service",
    "write /etc/systemd/system/gretun@.service",
    "write /etc/systemd/system/gretun-hub@.service",
    "write /etc/systemd/system/gretun-spoke@.service",
    "systemctl daemon-reload",
    "systemctl enable --quiet gretun.service",
    "systemctl restart gretun.service",
  ]);
  match(texts[0]!, /^useradd --system .* gretun$/);
});

Deno.test("install repeated only sees to it that the service is enabled and runs", () => {
  const host = new FakeHost();
  host.apply(installSteps(OPTIONS, host));
  deepStrictEqual(host.apply(installSteps(OPTIONS, host)), [
    "systemctl enable --quiet gretun.service",
    "systemctl start gretun.service",
  ]);
});

Deno.test("install of a newer program exchanges it and restarts the service", () => {
  const host = new FakeHost();
  host.apply(installSteps(OPTIONS, host));
  host.files.set("/tmp/gretun", "newer");
  const texts = host.apply(installSteps(OPTIONS, host));
  strictEqual(host.files.get("/usr/local/bin/gretun"), "newer");
  strictEqual(texts.at(-1), "systemctl restart gretun.service");
});

Deno.test("install restarts what runs an older program, other instances too if they run", () => {
  const host = new FakeHost();
  host.apply(installSteps(OPTIONS, host));
  const others = ["gretun@lab.service", "gretun@home.service"];
  const restarts = () =>
    installSteps({ ...OPTIONS, others }, host).map(stepText).filter((text) => /start /.test(text));
  deepStrictEqual(restarts(), ["systemctl start gretun.service"]);
  for (const unit of ["gretun.service", "gretun@lab.service"]) host.older.add(unit);
  deepStrictEqual(restarts(), [
    "systemctl restart gretun.service",
    "systemctl try-restart gretun@lab.service",
  ]);
  host.files.set("/tmp/gretun", "newer");
  strictEqual(restarts().at(-1), "systemctl try-restart gretun@home.service");
});

Deno.test("install keeps a configuration that is there, and an instance has its own", () => {
  const host = new FakeHost();
  host.files.set("/etc/gretun/up-lab.conf", "coordinator http://192.0.2.1:8443\n");
  const texts = host.apply(installSteps({ ...OPTIONS, instance: "lab" }, host));
  match(host.files.get("/etc/gretun/up-lab.conf")!, /192\.0\.2\.1/);
  strictEqual(texts.at(-1), "systemctl restart gretun@lab.service");
});

Deno.test("install from its own place copies nothing", () => {
  const host = new FakeHost();
  host.files.set("/usr/local/bin/gretun", "program");
  const steps = installSteps({ ...OPTIONS, program: "/usr/local/bin/gretun" }, host);
  ok(!steps.some(({ kind }) => kind === "copy"));
});

Deno.test("uninstall leaves nothing, unless the state is to be kept", () => {
  const host = new FakeHost();
  host.apply(installSteps(OPTIONS, host));
  host.files.set("/var/lib/gretun/keys.json", "{}");
  host.files.set("/run/gretun/service/up.sock", "");
  const units = ["gretun.service", "gretun@lab.service", "gretun-hub@x.service"];
  const options = { kind: "up", units, isShared: false } as const;
  const kept = uninstallSteps({ ...options, keepState: true }, host).map(stepText);
  ok(!kept.some((text) => text.includes("/var/lib") || text.includes("userdel")), kept.join("\n"));
  const texts = host.apply(uninstallSteps({ ...options, keepState: false }, host));
  deepStrictEqual(texts.slice(0, 5), [
    "/usr/local/bin/gretun down",
    "/usr/local/bin/gretun down --instance lab",
    "systemctl disable --now --quiet gretun.service",
    "systemctl disable --now --quiet gretun@lab.service",
    "systemctl disable --now --quiet gretun-hub@x.service",
  ]);
  deepStrictEqual([...host.files.keys()], ["/tmp/gretun"]);
  deepStrictEqual([...host.users], []);
});

Deno.test("uninstall of nothing does nothing", () => {
  const options = { kind: "up", units: [], isShared: false, keepState: false } as const;
  deepStrictEqual(uninstallSteps(options, new FakeHost()), []);
});

Deno.test("uninstall beside a coordinator leaves its user and configuration", () => {
  const host = new FakeHost();
  host.apply(installSteps(OPTIONS, host));
  host.apply(installSteps({ ...OPTIONS, kind: "coord", config: ["pool 10.77.0.0/24"] }, host));
  const options = { kind: "up", units: [], isShared: true, keepState: false } as const;
  host.apply(uninstallSteps(options, host));
  ok(host.exists(configPath("coord")) && host.users.has("gretun"));
  host.apply(uninstallSteps({ ...options, kind: "coord", isShared: false }, host));
  ok(!host.exists("/etc/gretun") && !host.users.has("gretun"));
});

Deno.test("units run as a user of their own with two capabilities, the coordinator with none", () => {
  for (const kind of ["up", "hub", "spoke"] as const) {
    const text = unitText({ kind, isTemplate: kind !== "up" });
    match(text, /^User=gretun$/m);
    match(text, /^CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW$/m);
  }
  for (const kind of ["up", "hub", "spoke", "coord"] as const) {
    const text = unitText({ kind, isTemplate: false });
    match(text, /^Type=notify$/m);
    match(text, /^WatchdogSec=60$/m);
    // It says what is wrong with its settings itself, and a look before would make a restart longer.
    match(text, /^RestartPreventExitStatus=2$/m);
    doesNotMatch(text, /^ExecStartPre=.*--check-config/m);
  }
  match(unitText({ kind: "coord", isTemplate: false }), /^CapabilityBoundingSet=$/m);
  strictEqual(unitName({ kind: "hub", isTemplate: true }), "gretun-hub@.service");
});

Deno.test("systemd finds no fault in the units", {
  ignore: !existsProgram("systemd-analyze"),
}, () => {
  const directory = Deno.makeTempDirSync();
  try {
    for (const kind of ["up", "hub", "spoke", "coord"] as const) {
      const options = { kind, isTemplate: kind === "hub" || kind === "spoke" };
      const path = `${directory}/${unitName(options).replace("@", "@x")}`;
      // The programs are not where the units start them from.
      Deno.writeTextFileSync(
        path,
        unitText(options).replaceAll(/\/usr\/local\/bin\/gretun(-coord)?/g, "/bin/true"),
      );
      const { stderr } = new Deno.Command("systemd-analyze", { args: ["verify", path] })
        .outputSync();
      const said = new TextDecoder().decode(stderr).split("\n").filter((line) =>
        line.includes(path.split("/").at(-1)!)
      );
      deepStrictEqual(said, [], kind);
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

function existsProgram(name: string): boolean {
  return ["/usr/bin", "/bin"].some((directory) => {
    try {
      return Deno.statSync(`${directory}/${name}`).isFile;
    } catch {
      return false;
    }
  });
}
