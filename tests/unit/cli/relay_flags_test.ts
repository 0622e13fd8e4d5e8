/** The relay's flags of gretun-coord. */
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { parseFlags } from "../../../lib/cli/flags.ts";
import { stunSettings } from "../../../lib/cli/coord/stun.ts";
import { RELAY_FLAGS, relayKeys, relaySettings } from "../../../lib/cli/coord/relay.ts";
import { UsageError } from "../../../lib/errors.ts";
import { keyBase64 } from "../../../lib/keys.ts";
import { randomNodeKey } from "../../fakes/coordinator.ts";

const settings = (...args: string[]) => relaySettings(parseFlags(args, RELAY_FLAGS));

Deno.test("relaySettings() without flags: port 3479, 100 Mbit/s, the kernel if it can", () => {
  deepStrictEqual(settings(), {
    listen: { hostname: "", port: 3479 },
    ports: { from: 49_152, to: 65_535 },
    bytesPerSecond: 12_500_000,
    mode: "auto",
    advertise: ":3479",
  });
});

Deno.test("relaySettings() takes what is said", () => {
  const said = settings(
    ...["--relay-listen", "192.0.2.1:99", "--relay-advertise", "relay.example:100"],
    ...["--relay-ports", "5000-5001", "--relay-rate", "0", "--relay-mode", "user"],
  );
  deepStrictEqual(said, {
    listen: { hostname: "192.0.2.1", port: 99 },
    ports: { from: 5000, to: 5001 },
    bytesPerSecond: 0,
    mode: "user",
    advertise: "relay.example:100",
  });
  strictEqual(settings("--relay-listen", "192.0.2.1:99")?.advertise, ":99");
  strictEqual(settings("--relay-listen", "off"), undefined);
});

Deno.test("relaySettings() refuses what is wrong", () => {
  const wrong = [
    ["--relay-ports", "5000"],
    ["--relay-ports", "5001-5000"],
    ["--relay-ports", "5000-5000"],
    ["--relay-ports", "0-5000"],
    ["--relay-ports", "5000-65536"],
    ["--relay-listen", "192.0.2.1"],
    ["--relay-advertise", "relay.example"],
    ["--relay-rate", "-1"],
    ["--relay-mode", "fast"],
  ];
  for (const args of wrong) throws(() => settings(...args), UsageError, args.join(" "));
});

Deno.test("relayKeys() reads what relays log, and nothing else", () => {
  const key = randomNodeKey();
  deepStrictEqual(relayKeys([keyBase64(key)]), [key]);
  for (const text of ["", key, "AAAA", "!"]) throws(() => relayKeys([text]), UsageError, text);
});

Deno.test("--stun-listen off beside a port is refused", () => {
  const advertise = { "stun-advertise": [] };
  throws(
    () => stunSettings({ "stun-listen": ["off", ":3478"], ...advertise }),
    /--stun-listen off and :3478 exclude each other/,
  );
  deepStrictEqual(stunSettings({ "stun-listen": ["off"], ...advertise }).listen, []);
});
