/** The flags of `gretun-coord serve`. */
import type { parseFlags } from "../flags.ts";
import { LOG_FLAGS } from "../log.ts";
import { HTTP_FLAGS } from "./http.ts";
import { RELAY_FLAGS } from "./relay.ts";
import { STATE_FLAG } from "./state.ts";
import { STUN_FLAGS } from "./stun.ts";

const { listen, ...TLS_FLAGS } = HTTP_FLAGS;

export const SERVE_FLAGS = {
  listen,
  pool: {
    type: "string",
    default: "100.64.0.0/24",
    placeholder: "CIDR",
    help: "addresses for nodes",
  },
  ...TLS_FLAGS,
  ...STATE_FLAG,
  ...STUN_FLAGS,
  ...RELAY_FLAGS,
  "coordinator-key": {
    type: "string",
    placeholder: "KEY",
    help:
      "with --relay-only: the coordinator's key, in base64 (default: what the first contact tells)",
  },
  ca: {
    type: "string",
    placeholder: "FILE",
    help: "with --relay-only: certificates (PEM) to trust too, the coordinator's or its issuer's",
  },
  "metrics-addr": {
    type: "string",
    placeholder: "HOST:PORT",
    help: "serve Prometheus metrics at /metrics (default off)",
  },
  policy: {
    type: "string",
    placeholder: "FILE",
    help: "who may reach what at whom (default: everybody everything); SIGHUP reads it again",
  },
  open: { type: "boolean", help: "let nodes join without a token, though there are some" },
  "allow-v1": {
    type: "boolean",
    help: "take older nodes, which sign for no coordinator, though a token is needed",
  },
  debug: { type: "boolean", help: "serve /debug/peers to everybody" },
  config: {
    type: "string",
    placeholder: "FILE",
    help: "settings, one KEY VALUE a line (default /etc/gretun/coord.conf, if there is one)",
  },
  "check-config": { type: "boolean", help: "check the settings and exit" },
  ...LOG_FLAGS,
} as const;

export type ServeFlags = ReturnType<typeof parseFlags<typeof SERVE_FLAGS>>;
