/** Manual pages: what troff could take for its own, and what a reader of them says. */
import { match, ok, strictEqual } from "node:assert/strict";
import { manPage } from "../../../lib/cli/man.ts";

const program = (help: string) => ({
  name: "gretun",
  version: "1",
  summary: "connects hosts",
  helpTexts: new Map([["up", help]]),
  files: { "/etc/gretun/up.conf": "settings" },
  seeAlso: ["gretun-coord"],
});

Deno.test("manPage() makes a list of the flags, and examples of what is indented", () => {
  const page = manPage(program(
    "Usage: gretun up [flags]\n\n  source <(x)\n\n  -v, --verbose     log more\n  --port PORT  the port\n",
  ));
  match(page, /^\.TP\n\.B \\-v, \\-\\-verbose\nlog more$/m);
  match(page, /^\.TP\n\.B \\-\\-port PORT\nthe port$/m);
  match(page, /^\.nf\n {2}source <\(x\)\n\.fi$/m);
  match(page, /^\.SS gretun up$/m);
});

Deno.test("text is no request and no escape", () => {
  const page = manPage(program(".so /etc/passwd\n'tis \\fB\n"));
  match(page, /^\\&\.so \/etc\/passwd$/m);
  match(page, /^\\&'tis \\efB$/m);
});

for (const name of ["main.ts", "coord.ts"]) {
  Deno.test(`${name}: mandoc finds nothing wrong with the manual page`, async () => {
    const root = new URL("../../../", import.meta.url).pathname;
    const flags = Deno.env.get("GRETUN_DENO_FLAGS")?.split(" ") ?? [];
    const made = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", ...flags, name, "man"],
      cwd: root,
    }).output();
    const page = new TextDecoder().decode(made.stdout);
    strictEqual(made.code, 0, new TextDecoder().decode(made.stderr));
    ok(page.startsWith(".TH GRETUN"));
    ok((page.match(/^\.SS /gm) ?? []).length >= 6);
    const complaints = await lint(page);
    strictEqual(complaints.join("\n"), "");
  });
}

/** No complaints where there is no mandoc. */
async function lint(page: string): Promise<string[]> {
  const directory = Deno.makeTempDirSync();
  try {
    Deno.writeTextFileSync(`${directory}/page.1`, page);
    const args = ["-Tlint", "-Wwarning", `${directory}/page.1`];
    const { stdout, stderr } = await new Deno.Command("mandoc", { args }).output();
    const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    // There is no date: the page is made anew with each version.
    return text.split("\n").filter((line) => line !== "" && !line.includes("missing date"));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}
