/** The flags of `gretun-coord serve`. */
import { flag, type parseFlags } from "../flags.ts";
import { METRICS_FLAG } from "../listen.ts";
import { LOG_FLAGS } from "../log.ts";
import { HTTP_FLAGS } from "./http.ts";
import { RELAY_FLAGS } from "./relay.ts";
import { STATE_FLAG } from "./state.ts";
import { STUN_FLAGS } from "./stun.ts";

const { listen, ...TLS_FLAGS } = HTTP_FLAGS;

export const SERVE_FLAGS = {
  listen,
  pool: flag.text("CIDR", "addresses for nodes", { default: "100.64.0.0/24" }),
  ...TLS_FLAGS,
  ...STATE_FLAG,
  ...STUN_FLAGS,
  ...RELAY_FLAGS,
  "coordinator-key": flag.text(
    "KEY",
    "with --relay-only: the coordinator's key, in base64 (default: what the first contact tells)",
  ),
  ca: flag.text(
    "FILE",
    "with --relay-only: certificates (PEM) to trust too, the coordinator's or its issuer's",
  ),
  ...METRICS_FLAG,
  policy: flag.text(
    "FILE",
    "who may reach what at whom (default: everybody everything); SIGHUP reads it again",
  ),
  open: flag.on("let nodes join without a token, though there are some"),
  "allow-v1": flag.on("take older nodes, which sign for no coordinator, though a token is needed"),
  debug: flag.on("serve /debug/peers to everybody"),
  config: flag.text(
    "FILE",
    "settings, one KEY VALUE a line (default /etc/gretun/coord.conf, if there is one)",
  ),
  "check-config": flag.on("check the settings and exit"),
  ...LOG_FLAGS,
} as const;

export type ServeFlags = ReturnType<typeof parseFlags<typeof SERVE_FLAGS>>;
