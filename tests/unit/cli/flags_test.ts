import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { doubleDashed, flagsHelp, parseFlags, withPositional } from "../../../lib/cli/flags.ts";
import { UsageError } from "../../../lib/errors.ts";

const SPECS = {
  name: { type: "string", help: "Name" },
  url: { type: "string", required: true, help: "Where", placeholder: "URL" },
  port: { formerly: "fou-port", type: "integer", min: 1, max: 65535, default: 7777, help: "Port" },
  wait: { type: "duration", min: 1, max: 90_000, default: 2000, help: "Wait" },
  server: { type: "list", help: "Servers" },
  plane: { type: "choice", choices: ["auto", "fou", "tun"], default: "auto", help: "Plane" },
  json: { type: "boolean", help: "JSON" },
  verbose: { type: "boolean", short: "v", help: "Log more" },
} as const;

Deno.test("parseFlags() reads every kind of flag", () => {
  const cases: [string, string[], Record<string, unknown>][] = [
    ["defaults", [], {}],
    ["a value after a space or an equals sign", ["--port", "1", "--name=n"], {
      port: 1,
      name: "n",
    }],
    ["a dash for standard input", ["--name", "-", "--json"], { name: "-", json: true }],
    ["other bases", ["--port", "0x1F90"], { port: 8080 }],
    ["durations", ["--wait", "1m30s"], { wait: 90_000 }],
    ["milliseconds", ["--wait", "500ms"], { wait: 500 }],
    ["lists", ["--server", "a,b", "--server=c"], { server: ["a", "b", "c"] }],
    ["booleans", ["--json", "-v"], { json: true, verbose: true }],
    ["a boolean turned off", ["--json=false"], { json: false }],
    ["a choice", ["--plane", "tun"], { plane: "tun" }],
    ["a former name", ["--fou-port", "1"], { port: 1 }],
  ];
  const defaults = {
    name: undefined,
    url: "u",
    port: 7777,
    wait: 2000,
    server: [],
    plane: "auto",
    json: false,
    verbose: false,
  };
  for (const [name, args, wanted] of cases) {
    deepStrictEqual(parseFlags(["--url", "u", ...args], SPECS), { ...defaults, ...wanted }, name);
  }
});

Deno.test("parseFlags() names the flag and the value that it refuses", () => {
  const cases: [string, string[], RegExp][] = [
    ["unknown flag", ["--bogus", "1"], /--bogus/],
    ["unknown short flag", ["-x"], /-x/],
    ["extra word", ["word"], /"word"/],
    ["zero port", ["--port", "0"], /--port 0/],
    ["port too large", ["--port", "65536"], /--port 65536/],
    ["two values", ["--port", "1", "--port=2"], /--port is given twice/],
    ["two values by two names", ["--port", "1", "--fou-port=2"], /--port is given twice/],
    ["port with letters", ["--port", "12a"], /--port "12a"/],
    ["negative port", ["--port=-1"], /--port -1/],
    ["negative port as a word of its own", ["--port", "-1"], /--port -1/],
    ["empty value", ["--name="], /--name/],
    ["no value", ["--name"], /--name/],
    ["duration without unit", ["--wait", "5"], /--wait "5"/],
    ["negative duration", ["--wait", "-5s"], /--wait "-5s"/],
    ["no duration at all", ["--wait", "0s"], /--wait "0s" is too short/],
    ["duration too long", ["--wait", "2m"], /--wait "2m" is too long/],
    ["unknown choice", ["--plane", "x"], /--plane "x"/],
  ];
  for (const [name, args, pattern] of cases) {
    throws(() => parseFlags(["--url", "u", ...args], SPECS), (error) => {
      ok(error instanceof UsageError, name);
      ok(pattern.test(error.message), `${name}: ${error.message}`);
      ok(error.hint.length > 0, name);
      return true;
    });
  }
  throws(() => parseFlags([], SPECS), /--url is missing/);
  const limits = (error: Error) => error instanceof UsageError && error.hint === "Give 1ms to 90s";
  throws(() => parseFlags(["--url", "u", "--wait", "0s"], SPECS), limits);
});

Deno.test("withPositional() makes a word the flag that it stands for, of a list all words", () => {
  const cases: [given: string, flag: keyof typeof SPECS, expected: string][] = [
    ["site --json", "name", "--name=site --json"],
    ["--json site", "name", "--json --name=site"],
    ["--port 1 site", "name", "--port 1 --name=site"],
    ["site other", "name", "--name=site other"],
    ["--name site other", "name", "--name site other"],
    ["a --json b", "server", "--server=a --json --server=b"],
    ["--server a b", "server", "--server a --server=b"],
  ];
  for (const [given, flag, expected] of cases) {
    strictEqual(withPositional(given.split(" "), flag, SPECS).join(" "), expected);
  }
});

Deno.test("flagsHelp() shows every flag on one line, aligned", () => {
  const lines = flagsHelp(SPECS).split("\n");
  strictEqual(lines.length, Object.keys(SPECS).length);
  ok(lines.some((line) => /^ {2}--port VALUE +Port \(default 7777\)$/.test(line)));
  ok(lines.some((line) => /^ {2}-v, --verbose +Log more$/.test(line)));
});

Deno.test("doubleDashed() takes known long flags with one dash", () => {
  const cases: [string[], string[]][] = [
    [["-name", "x", "-port=1"], ["--name", "x", "--port=1"]],
    [["--name", "x", "-v", "-"], ["--name", "x", "-v", "-"]],
    [["-unknown", "-1", "name"], ["-unknown", "-1", "name"]],
  ];
  for (const [args, expected] of cases) {
    deepStrictEqual(doubleDashed(args, Object.keys(SPECS)), expected);
  }
});

Deno.test("flagsHelp() shows what a flag may be", () => {
  const help = flagsHelp({
    mode: { type: "choice", choices: ["auto", "kernel"], default: "auto", help: "who does it" },
    file: { type: "string", help: "where" },
    all: { type: "boolean", help: "all of it" },
  });
  strictEqual(
    help,
    "  --mode auto|kernel  who does it (default auto)\n" +
      "  --file VALUE        where\n" +
      "  --all               all of it",
  );
});
