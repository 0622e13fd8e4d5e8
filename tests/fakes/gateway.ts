/** A home router that makes port mappings, by each protocol as its document has it. */
import {
  type Endpoint,
  type Ip,
  ipBytes,
  ipBytes16,
  ipFromBytes,
  parseIp,
} from "../../lib/addr.ts";
import { concatBytes, Reader, toHex, Writer } from "../../lib/bytes.ts";
import type { ByteStream } from "../../lib/byte_stream.ts";
import type { Datagram } from "../../lib/edges.ts";
import type { PortMapNet, PortMapProtocol, UdpSocket } from "../../lib/portmap/mod.ts";
import type { VirtualClock } from "./virtual_clock.ts";

export const GATEWAY = parseIp("192.168.1.1");
export const LOCAL = parseIp("192.168.1.20");
const HTTP_PORT = 5000;
const IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:";

export interface FakeMapping {
  internalPort: number;
  /** What came with it: the PCP nonce in hex, or the name of the protocol. */
  owner: string;
  expiresMs: number;
}

export interface FakePage {
  status: number;
  text: string;
  /** Lines of the head, besides the length. */
  headers?: string[];
}

/** What goes over a connection, in pieces. */
export interface WireAnswer {
  pieces: (string | Uint8Array)[];
  /** Nothing more comes, and no end either. */
  staysOpen?: boolean;
}

/** As the standard has it. */
export function wellFormed({ status, text, headers = [] }: FakePage): WireAnswer {
  const { length } = new TextEncoder().encode(text);
  const head = [`HTTP/1.1 ${status} Some Reason`, ...headers, `Content-Length: ${length}`];
  return { pieces: [[...head, "", text].join("\r\n")] };
}

export class FakeGateway implements PortMapNet {
  speaks: Set<PortMapProtocol>;
  externalIp: Ip = parseIp("198.51.100.7");
  /** By external port. */
  mappings = new Map<number, FakeMapping>();
  delayMs: Record<PortMapProtocol, number> = { pcp: 5, natpmp: 5, upnp: 5 };
  /** Of every datagram that would be sent to the host, what is sent in its place. */
  distort: (answer: Datagram) => Datagram[] = (answer) => [answer];
  /** How many datagrams of the host are lost, from now. */
  losses = 0;
  /** Result of every request for a mapping, where it is not 0. */
  result: Partial<Record<PortMapProtocol, number>> = {};
  /** UPnP: what makes an action fail with an error code. */
  fault: (action: string, values: Map<string, string>) => number | undefined = () => undefined;
  serviceType = "urn:schemas-upnp-org:service:WANIPConnection:1";
  /** As the description has it, and where it is. */
  controlUrl = "/ctl";
  controlPath = "/ctl";
  closedPorts: number[] = [];
  location = `http://${GATEWAY}:${HTTP_PORT}/desc.xml`;
  /** In place of the description. */
  page: () => FakePage = () => ({ status: 200, text: this.description() });
  /** How answers are put on the wire. */
  wire: (page: FakePage) => WireAnswer = wellFormed;
  /** Port and path of each HTTP request. */
  readonly requests: string[] = [];
  /** What came, in order: "pcp map", "natpmp address", "upnp AddPortMapping" and the like. */
  readonly log: string[] = [];
  openSockets = 0;
  hasMulticast = true;
  readonly #groups = new Map<string, (datagram: Datagram) => void>();
  readonly #clock: VirtualClock;
  #startMs: number;

  constructor(clock: VirtualClock, ...speaks: PortMapProtocol[]) {
    this.#clock = clock;
    this.#startMs = clock.nowMs() - 1_000_000;
    this.speaks = new Set(speaks);
  }

  /** Forgets everything. */
  restart(): void {
    this.mappings.clear();
    this.#startMs = this.#clock.nowMs();
  }

  /** External ports that lead to the host now. */
  get ports(): number[] {
    const nowMs = this.#clock.nowMs();
    return [...this.mappings].filter(([, { expiresMs }]) => expiresMs > nowMs).map(([port]) =>
      port
    );
  }

  openUdp(): UdpSocket {
    return this.#open().socket;
  }

  /** None where the port is another program's alone. */
  openMulticast({ ip, port }: Endpoint): UdpSocket | undefined {
    if (!this.hasMulticast) return undefined;
    const { socket, deliver } = this.#open();
    this.#groups.set(`${ip}:${port}`, deliver);
    return socket;
  }

  /** To all hosts; from its own port unless told. */
  announce(bytes: Uint8Array, from: Endpoint = { ip: GATEWAY, port: 5351 }): void {
    this.#clock.after(1, () => this.#groups.get("224.0.0.1:5350")?.({ bytes, from }));
  }

  #open(): { socket: UdpSocket; deliver: (datagram: Datagram) => void } {
    const queue: Datagram[] = [];
    let waiting: ((datagram: Datagram | undefined) => void) | undefined;
    let isClosed = false;
    this.openSockets++;
    const deliver = (datagram: Datagram) => {
      if (isClosed) return;
      if (waiting) waiting(datagram);
      else queue.push(datagram);
      waiting = undefined;
    };
    const socket: UdpSocket = {
      send: (bytes, to) => {
        if (this.losses-- > 0) return;
        this.losses = 0;
        const found = this.#answer(bytes, to);
        if (!found) return;
        const answer = { bytes: found.bytes, from: { ip: GATEWAY, port: to.port } };
        this.#clock.after(
          this.delayMs[found.protocol],
          () => this.distort(answer).forEach(deliver),
        );
      },
      receive: () =>
        new Promise((resolve) => {
          const next = queue.shift();
          if (next || isClosed) resolve(next);
          else waiting = resolve;
        }),
      [Symbol.dispose]: () => {
        if (isClosed) return;
        isClosed = true;
        this.openSockets--;
        waiting?.(undefined);
      },
    };
    return { socket, deliver };
  }

  async connect({ ip, port }: Endpoint, signal: AbortSignal): Promise<ByteStream> {
    await this.#clock.sleep(this.delayMs.upnp, signal);
    if (!this.speaks.has("upnp") || ip !== GATEWAY || this.closedPorts.includes(port)) {
      throw new TypeError("connection refused");
    }
    let request: Uint8Array = new Uint8Array();
    let answer: Promise<WireAnswer> | undefined;
    let isClosed = false;
    this.openSockets++;
    return {
      write: async (bytes) => {
        request = concatBytes(request, bytes);
        answer ??= this.#answerHttp(new TextDecoder().decode(request), port);
      },
      read: async () => {
        const { pieces, staysOpen } = await answer!;
        const piece = isClosed ? undefined : pieces.shift();
        if (!piece && staysOpen && !isClosed) await new Promise(() => {});
        return typeof piece === "string" ? new TextEncoder().encode(piece) : piece;
      },
      [Symbol.dispose]: () => {
        if (!isClosed) this.openSockets--;
        isClosed = true;
      },
    };
  }

  /** As strict as routers are that know the names of headers in one spelling only. */
  async #answerHttp(text: string, port: number): Promise<WireAnswer> {
    const [head, body = ""] = text.split("\r\n\r\n");
    const [, method, path] = /^(\S+) (\S+) HTTP\/1.1\r\n/.exec(text)!;
    this.requests.push(`${port} ${path}`);
    const length = Number(/\r\nContent-Length: (\d+)/.exec(head!)?.[1]);
    if (method === "GET") return this.wire(this.page());
    if (length !== body.length) return this.wire({ status: 411, text: "" });
    if (!/\r\nSOAPAction: "urn:[^"]+#\w+"/.test(head!)) return this.wire({ status: 400, text: "" });
    return this.wire(path === this.controlPath ? this.#act(body) : { status: 404, text: "" });
  }

  // --- datagrams

  #answer(bytes: Uint8Array, to: Endpoint) {
    if (to.port === 1900) return this.#answerSearch(bytes);
    const version = bytes[0] === 2 ? "pcp" : "natpmp";
    if (to.ip !== GATEWAY || to.port !== 5351) return undefined;
    if (this.speaks.has(version)) {
      const answer = version === "pcp" ? this.#answerPcp(bytes) : this.#answerNatPmp(bytes);
      return { protocol: version, bytes: answer } as const;
    }
    if (version === "natpmp" || !this.speaks.has("natpmp")) return undefined;
    const unsupported = new Writer("network").u8(0).u8(128 + bytes[1]!).u16(1).u32(this.#epoch());
    return { protocol: "natpmp", bytes: unsupported.finish() } as const;
  }

  #epoch(): number {
    return Math.floor((this.#clock.nowMs() - this.#startMs) / 1000);
  }

  #answerNatPmp(bytes: Uint8Array): Uint8Array {
    const op = bytes[1]!;
    this.log.push(op === 0 ? "natpmp address" : "natpmp map");
    const result = this.result.natpmp ?? 0;
    const answer = new Writer("network").u8(0).u8(128 + op).u16(result).u32(this.#epoch());
    if (result !== 0) return answer.finish();
    if (op === 0) return answer.bytes(ipBytes(this.externalIp)).finish();
    const request = new Reader(bytes, "network").skip(4);
    const internalPort = request.u16();
    const wanted = request.u16();
    const lifetime = request.u32();
    // Section 3.4: who deletes must ask for port 0.
    if (lifetime === 0 && wanted !== 0) return new Uint8Array();
    const port = this.#map(internalPort, wanted, lifetime, "natpmp");
    return answer.u16(internalPort).u16(port).u32(lifetime).finish();
  }

  #answerPcp(bytes: Uint8Array): Uint8Array {
    const request = new Reader(bytes, "network").skip(1);
    const op = request.u8();
    this.log.push(op === 0 ? "pcp announce" : "pcp map");
    const lifetime = request.skip(2).u32();
    const client = ipFromBytes(request.bytes(16));
    let result = op === 0 ? 0 : this.result.pcp ?? 0;
    if (client !== LOCAL) result = 12;
    const header = () =>
      new Writer("network").u8(2).u8(128 + op).u8(0).u8(result).u32(lifetime).u32(this.#epoch())
        .zeros(12);
    if (op === 0) return header().finish();
    const nonce = request.bytes(12);
    const internalPort = request.skip(4).u16();
    const wanted = request.u16();
    const owner = toHex(nonce);
    const others = [...this.mappings.values()]
      .some((each) => each.internalPort === internalPort && each.owner !== owner);
    if (others) result = 2;
    const port = result === 0 ? this.#map(internalPort, wanted, lifetime, owner) : wanted;
    return header().bytes(nonce).u8(17).zeros(3).u16(internalPort).u16(port)
      .bytes(ipBytes16(this.externalIp)).finish();
  }

  #answerSearch(bytes: Uint8Array) {
    const text = new TextDecoder().decode(bytes);
    if (!this.speaks.has("upnp") || !text.includes(`ST: ${IGD}1`)) return undefined;
    this.log.push("upnp search");
    const lines = [
      "HTTP/1.1 200 OK",
      "CACHE-CONTROL: max-age=120",
      `ST: ${IGD}1`,
      `LOCATION: ${this.location}`,
    ];
    return {
      protocol: "upnp",
      bytes: new TextEncoder().encode(lines.join("\r\n") + "\r\n\r\n"),
    } as const;
  }

  /** Gives the external port. */
  #map(internalPort: number, wanted: number, lifetime: number, owner: string): number {
    const had = [...this.mappings].find(([, each]) => each.internalPort === internalPort)?.[0];
    if (lifetime === 0) {
      if (had !== undefined) this.mappings.delete(had);
      return 0;
    }
    const port = had ?? wanted;
    const expiresMs = this.#clock.nowMs() + lifetime * 1000;
    this.mappings.set(port, { internalPort, owner, expiresMs });
    return port;
  }

  // --- UPnP

  description(): string {
    return `<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceType>${IGD}1</deviceType>
<deviceList><device><deviceList><device><serviceList><service>
<serviceType>${this.serviceType}</serviceType><controlURL>${this.controlUrl}</controlURL>
</service></serviceList></device></deviceList></device></deviceList></device></root>`;
  }

  #act(body: string): FakePage {
    const action = /<u:(\w+) /.exec(body)![1]!;
    const values = new Map(
      [...body.matchAll(/<(New\w+)>([^<]*)</g)].map(([, name, value]) => [name!, value!]),
    );
    this.log.push(`upnp ${action}`);
    const code = this.fault(action, values) ?? this.#doAct(action, values);
    if (typeof code === "number") {
      const error = `<errorCode>${code}</errorCode><errorDescription>no</errorDescription>`;
      const detail = `<detail><UPnPError>${error}</UPnPError></detail>`;
      return { status: 500, text: soap(`<s:Fault>${detail}</s:Fault>`) };
    }
    return { status: 200, text: soap(`<u:${action}Response>${code}</u:${action}Response>`) };
  }

  /** The values of the answer, or an error code. */
  #doAct(action: string, values: Map<string, string>): string | number {
    const port = Number(values.get("NewExternalPort"));
    const mapping = this.mappings.get(port);
    switch (action) {
      case "GetExternalIPAddress":
        return `<NewExternalIPAddress>${this.externalIp}</NewExternalIPAddress>`;
      case "AddPortMapping":
      case "AddAnyPortMapping": {
        const lifetime = Number(values.get("NewLeaseDuration")) || 604_800;
        this.#map(Number(values.get("NewInternalPort")), port, lifetime, "upnp");
        return action === "AddPortMapping" ? "" : `<NewReservedPort>${port}</NewReservedPort>`;
      }
      case "GetSpecificPortMappingEntry":
        return mapping
          ? `<NewInternalPort>${mapping.internalPort}</NewInternalPort>` +
            `<NewInternalClient>${LOCAL}</NewInternalClient>`
          : 714;
      case "DeletePortMapping":
        return this.mappings.delete(port) ? "" : 714;
      default:
        return 401;
    }
  }
}

function soap(body: string): string {
  const namespace = "http://schemas.xmlsoap.org/soap/envelope/";
  return `<?xml version="1.0"?><s:Envelope xmlns:s="${namespace}"><s:Body>${body}</s:Body></s:Envelope>`;
}
