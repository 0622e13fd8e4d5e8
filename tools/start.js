/**
 * The first module of the compiled gretun. `up` runs as one script of its own, whose functions V8 need not compile:
 * its code cache comes with the program, see compile.sh. Where V8 takes none (it compares its version, its
 * flags and the script), and for all other commands, it is the modules as ever.
 */
const textOf = (name) => Deno.readTextFileSync(new URL(name, import.meta.url));

/** Words that name a coordinator by its address; what a proxy may have to connect to is left alone. */
const COORDINATOR = /^(?:--coordinator=)?(https?):\/\/([\d.]+|\[[\da-f:]+\])(?::(\d+))?\/?$/i;
const PROXIES = ["http_proxy", "https_proxy", "all_proxy"];
const UNUSED_MS = 5_000;

/**
 * Connects to the coordinator while the program is loaded, which takes as long as a round trip.
 * connectTcp() takes it; it is closed where the program wants no such connection.
 */
function connectEarly() {
  const [, scheme, host, port] = Deno.args.map((word) => COORDINATOR.exec(word)).find(Boolean) ??
    [];
  const isProxied = PROXIES.some((name) => Deno.env.get(name) || Deno.env.get(name.toUpperCase()));
  if (host === undefined || isProxied || Deno.args.includes("--check-config")) return;
  const to = {
    hostname: host.replace(/[[\]]/g, ""),
    port: Number(port ?? (scheme.toLowerCase() === "https" ? 443 : 80)),
  };
  const connection = Deno.connect(to).catch(() => undefined);
  globalThis.earlyConnection = { ...to, connection };
  Deno.unrefTimer(setTimeout(async () => {
    if (globalThis.earlyConnection) (await connection)?.close();
    delete globalThis.earlyConnection;
  }, UNUSED_MS));
}

async function runCached() {
  const cachedData = Deno.readFileSync(new URL("up.cache", import.meta.url));
  if (cachedData.length === 0) return false;
  const [{ Script }, { createRequire }] = await Promise.all([
    import("node:vm"),
    import("node:module"),
  ]);
  const script = new Script(textOf("up.txt"), { filename: "gretun", cachedData });
  if (script.cachedDataRejected) return false;
  globalThis.require = createRequire(import.meta.url);
  script.runInThisContext();
  return true;
}

if (Deno.args[0] === "up") connectEarly();
if (Deno.args[0] !== "up" || !await runCached()) await import("./main.js");
