/** The systemd units of gretun's services. Pure: texts out of what the administrator chose. */

export type ServiceKind = "up" | "hub" | "spoke" | "coord";

/** Its own, without a shell, made by the installation. */
export const SERVICE_USER = "gretun";

interface Service {
  description: string;
  program: "gretun" | "gretun-coord";
  /** After the program's name. */
  command: string;
  capabilities: readonly string[];
  /** What the service gets besides the rest of the sandbox. */
  lines: readonly string[];
}

const TUNNEL_CAPABILITIES = ["CAP_NET_ADMIN", "CAP_NET_RAW"];
/** Modules are loaded outside of the sandbox; a kernel without them is no reason not to start. */
const LOAD_MODULES = "ExecStartPre=+-/sbin/modprobe -aq fou fou6 ip_gre ip6_gre ipip tun nf_tables";
/** Not ProtectKernelTunables: settings of our own links are written in /proc/sys/net. */
const TUNNEL_SANDBOX = [
  "DeviceAllow=/dev/net/tun rw",
  "DevicePolicy=closed",
  "RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX",
];

/** By the shell: a small Debian has no /bin/kill. */
const kill = (signal: string) => `/bin/sh -c "kill -${signal} $MAINPID"`;

const SERVICES: Record<ServiceKind, Service> = {
  up: {
    description: "gretun overlay network",
    program: "gretun",
    command: "up",
    capabilities: TUNNEL_CAPABILITIES,
    lines: [
      LOAD_MODULES,
      // Tunnels of the kernel carry data while the program is exchanged.
      "Environment=GRETUN_KEEP_LINKS=true",
      ...TUNNEL_SANDBOX,
    ],
  },
  hub: {
    description: "gretun hub",
    program: "gretun",
    command: "hub",
    capabilities: TUNNEL_CAPABILITIES,
    lines: [
      LOAD_MODULES,
      // Reads configuration and clients again; what cannot change while it runs is logged.
      "ExecReload=/usr/local/bin/gretun hub --config %i --check-config",
      `ExecReload=${kill("HUP")}`,
      ...TUNNEL_SANDBOX,
    ],
  },
  spoke: {
    description: "gretun spoke",
    program: "gretun",
    command: "spoke",
    capabilities: TUNNEL_CAPABILITIES,
    lines: [
      LOAD_MODULES,
      // Authenticates again.
      `ExecReload=${kill("USR1")}`,
      ...TUNNEL_SANDBOX,
    ],
  },
  coord: {
    description: "gretun coordinator",
    program: "gretun-coord",
    command: "serve",
    capabilities: [],
    lines: [
      // Of the policy.
      "ExecReload=/usr/local/bin/gretun-coord policy reload",
      "LimitNOFILE=65536",
      "PrivateDevices=yes",
      "PrivateUsers=yes",
      "ProtectKernelTunables=yes",
      "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    ],
  },
};

/** Not MemoryDenyWriteExecute: the JavaScript engine writes the code that it runs. */
const SANDBOX = [
  "NoNewPrivileges=yes",
  "ProtectSystem=strict",
  "ProtectHome=yes",
  "PrivateTmp=yes",
  "PrivateMounts=yes",
  "ProtectKernelModules=yes",
  "ProtectControlGroups=yes",
  "ProtectKernelLogs=yes",
  "ProtectClock=yes",
  "ProtectHostname=yes",
  "ProtectProc=invisible",
  "RestrictNamespaces=yes",
  "RestrictRealtime=yes",
  "RestrictSUIDSGID=yes",
  "LockPersonality=yes",
  "RemoveIPC=yes",
  "UMask=0077",
  "SystemCallArchitectures=native",
  // The JavaScript engine guards its code by protection keys.
  "SystemCallFilter=@system-service @pkey",
  "SystemCallFilter=~@privileged @resources",
  // A program is told no, not killed.
  "SystemCallErrorNumber=EPERM",
];

export interface UnitOptions {
  kind: ServiceKind;
  /** A template, started as `NAME@INSTANCE`. */
  isTemplate: boolean;
}

/** "gretun.service", "gretun@.service", "gretun-hub@.service", "gretun-coord.service". */
export function unitName({ kind, isTemplate }: UnitOptions): string {
  const base = kind === "up" ? "gretun" : `gretun-${kind}`;
  return `${base}${isTemplate ? "@" : ""}.service`;
}

/** The text of a unit, complete. */
export function unitText(options: UnitOptions): string {
  const { kind, isTemplate } = options;
  const service = SERVICES[kind];
  const program = `/usr/local/bin/${service.program}`;
  const config = configArguments(options);
  const words = (...parts: string[]) => parts.filter((part) => part !== "").join(" ");
  const isCoord = kind === "coord";
  const capabilities = service.capabilities.join(" ");
  return [
    "[Unit]",
    `Description=${service.description}${isTemplate ? " %i" : ""}`,
    "After=network-online.target nss-lookup.target time-sync.target",
    "Wants=network-online.target",
    // Never given up: what stops it may be gone in an hour.
    "StartLimitIntervalSec=0",
    "",
    "[Service]",
    "Type=notify",
    `User=${SERVICE_USER}`,
    `Group=${SERVICE_USER}`,
    `ExecStart=${words(program, service.command, config)}`,
    // What was asked to end stays down.
    "Restart=on-failure",
    "RestartSec=2",
    // Wrong usage: the same start would end in the same way.
    "RestartPreventExitStatus=2",
    "WatchdogSec=60",
    "KillMode=mixed",
    "TimeoutStopSec=15",
    `StateDirectory=${isCoord ? "gretun-coord" : "gretun"}`,
    "StateDirectoryMode=0700",
    // In root's own, whose owner it leaves alone; others look for locks there, and for sockets.
    ...(isCoord ? [] : [
      "RuntimeDirectory=gretun/service",
      "RuntimeDirectoryMode=0755",
      "RuntimeDirectoryPreserve=yes",
    ]),
    `CapabilityBoundingSet=${capabilities}`,
    ...(capabilities ? [`AmbientCapabilities=${capabilities}`] : []),
    ...service.lines,
    ...SANDBOX,
    "",
    "[Install]",
    "WantedBy=multi-user.target",
    "",
  ].join("\n");
}

function configArguments({ kind, isTemplate }: UnitOptions): string {
  if (kind === "hub" || kind === "spoke") return "--config %i";
  if (kind === "coord") return "";
  return isTemplate ? "--instance %i" : "";
}
