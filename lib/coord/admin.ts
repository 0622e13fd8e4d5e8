/**
 * What the operator asks and tells a running coordinator, as HTTP on its control socket:
 *
 *     GET  /v1/status
 *     GET  /v1/nodes            POST /v1/nodes/{approve,expire,rename,tag,delete}
 *     GET  /v1/tokens           POST /v1/tokens/{create,revoke}
 *                               POST /v1/policy/{reload,explain}
 */
import { formatCidr } from "../addr.ts";
import type { Log, Random } from "../edges.ts";
import { errorText } from "../errors.ts";
import { keyBase64, type NodeKey } from "../keys.ts";
import { contains, formatAccess, parseAccess } from "../policy/access.ts";
import {
  ApiError,
  MAX_NAME_LENGTH,
  type NodeRecord,
  recordJson,
  TAGS,
  TOKEN_SECRET_LENGTH,
  tokenJson,
  tokenText,
  toPeer,
} from "./api.ts";
import {
  type Json,
  MARK,
  MS,
  optional,
  parsed,
  parseShape,
  required,
  STRING,
  text,
} from "./api/json.ts";
import type { PolicyDesk } from "./policy_desk.ts";
import type { CoordServer } from "./server.ts";
import { hashOf } from "./tokens.ts";

/** How one node is named: by its name, address, or the beginning of its key in hex or base64. */
const NODE = required("node", STRING);
const MIN_KEY_DIGITS = 6;

const BODIES = {
  node: { node: NODE },
  rename: { node: NODE, name: optional("name", text(MAX_NAME_LENGTH)) },
  tag: { node: NODE, tags: required("tags", TAGS) },
  token: {
    /** From now on. */
    lifeMs: optional("life_ms", MS),
    isReusable: optional("reusable", MARK),
    isEphemeral: optional("ephemeral", MARK),
    isApproving: optional("approve", MARK),
    tags: required("tags", TAGS),
  },
  revoke: { id: required("id", STRING) },
  explain: {
    from: required("from", STRING),
    to: required("to", STRING),
    /** As a policy has it: "tcp:443". */
    access: required("access", STRING),
  },
};

export interface AdminOptions {
  server: CoordServer;
  /** Tokens name it. */
  coordinatorKey: NodeKey;
  random: Random;
  /** Absent: there is no policy. */
  policy?: PolicyDesk;
  log: Log;
  /** In wall-clock ms. */
  nowMs: () => number;
  /** What the program knows besides. */
  more: () => Json;
}

export class Admin {
  readonly #options: AdminOptions;

  constructor(options: AdminOptions) {
    this.#options = options;
  }

  /** Never throws. */
  async handle(request: Request): Promise<Response> {
    try {
      const { pathname } = new URL(request.url);
      const body = request.method === "POST" ? await request.json() : undefined;
      const answer = await this.#answer(`${request.method} ${pathname}`, body);
      return answer ? Response.json(answer) : new Response("not found\n", { status: 404 });
    } catch (error) {
      const status = error instanceof ApiError || error instanceof SyntaxError ? 400 : 500;
      return new Response(errorText(error) + "\n", { status });
    }
  }

  async #answer(call: string, body: unknown): Promise<Json | undefined> {
    const { server } = this.#options;
    switch (call) {
      case "GET /v1/status":
        return this.#status();
      case "GET /v1/nodes":
        return { nodes: server.nodes.all().map((node) => this.#json(node)) };
      case "POST /v1/nodes/approve":
        return this.#edit(parseShape(BODIES.node, body).node, { isWaiting: undefined });
      case "POST /v1/nodes/expire":
        return this.#edit(parseShape(BODIES.node, body).node, { expiresMs: this.#options.nowMs() });
      case "POST /v1/nodes/rename": {
        const { node, name } = parseShape(BODIES.rename, body);
        return this.#edit(node, { givenName: name });
      }
      case "POST /v1/nodes/tag": {
        const { node, tags } = parseShape(BODIES.tag, body);
        return this.#edit(node, { tags });
      }
      case "POST /v1/nodes/delete":
        return this.#delete(parseShape(BODIES.node, body).node);
      case "GET /v1/tokens":
        return { tokens: server.tokens.all().map(withoutHash) };
      case "POST /v1/tokens/create":
        return await this.#createToken(body);
      case "POST /v1/tokens/revoke":
        return this.#revoke(parseShape(BODIES.revoke, body).id);
      case "POST /v1/policy/reload":
        return this.#reloadPolicy();
      case "POST /v1/policy/explain":
        return this.#explain(body);
      default:
        return undefined;
    }
  }

  #reloadPolicy(): Json {
    const { policy, server, log } = this.#options;
    if (policy) return policy.reload(server, log);
    throw new ApiError("there is no policy");
  }

  #explain(body: unknown): Json {
    const { server } = this.#options;
    const given = parseShape(BODIES.explain, body);
    const [from, to] = [this.#find(given.from), this.#find(given.to)];
    const wanted = parsed("access", () => parseAccess(given.access));
    const found = server.explain(from, to);
    return {
      ...{ from: toPeer(from).name, to: toPeer(to).name, access: given.access },
      policy: found !== undefined,
      allowed: !found || contains(found.access, wanted),
      visible: !found || found.isSeen,
      rules: (found?.rules ?? []).map(({ line, allow }) => ({ line, allow: formatAccess(allow) })),
    };
  }

  #json(node: NodeRecord): Json {
    const collisions = this.#options.server.collisionsOf(node.nodeKey);
    return { ...shown(node), ...(collisions.length > 0 ? { collisions } : {}) };
  }

  #status(): Json {
    const { server, coordinatorKey, policy, more } = this.#options;
    const { nodes } = server;
    const all = nodes.all();
    return {
      key: keyBase64(coordinatorKey),
      pool: formatCidr(nodes.pool),
      open: server.isOpen,
      nodes: {
        listed: all.filter(({ listed }) => listed).length,
        waiting: all.filter(({ isWaiting }) => isWaiting).length,
        known: all.length,
        capacity: nodes.capacity,
      },
      clones: server.clones(),
      collisions: all.flatMap((node) =>
        server.collisionsOf(node.nodeKey).map((text) => ({ node: toPeer(node).name, text }))
      ),
      ...(policy ? { policy: policy.status() } : {}),
      ...more(),
    };
  }

  #edit(name: string, change: Parameters<CoordServer["nodes"]["edit"]>[1]): Json {
    const { server } = this.#options;
    const node = this.#find(name);
    server.nodes.edit(node, change);
    server.edited(node);
    return shown(server.nodes.get(node.nodeKey)!);
  }

  #delete(name: string): Json {
    const { server } = this.#options;
    const node = this.#find(name);
    server.nodes.remove(node);
    server.edited(node);
    return shown(node);
  }

  /** Throws {@link ApiError}. */
  #find(name: string): NodeRecord {
    const all = this.#options.server.nodes.all();
    const isMeant = (node: NodeRecord) =>
      node.tunnelIp === name || (node.givenName ?? node.name) === name ||
      (name.length >= MIN_KEY_DIGITS &&
        (node.nodeKey.startsWith(name) || keyBase64(node.nodeKey).startsWith(name)));
    const [found, another] = all.filter(isMeant);
    if (!found) throw new ApiError(`no node is called ${JSON.stringify(name)}`);
    if (another) {
      throw new ApiError(
        `several nodes are called ${JSON.stringify(name)}: give the address or key`,
      );
    }
    return found;
  }

  async #createToken(body: unknown): Promise<Json> {
    const { server, coordinatorKey, random, nowMs } = this.#options;
    const { lifeMs, ...wishes } = parseShape(BODIES.token, body);
    const secret = random(TOKEN_SECRET_LENGTH);
    const now = nowMs();
    const token = server.tokens.make(
      await hashOf(secret),
      { ...wishes, ...(lifeMs === undefined ? {} : { expiresMs: now + lifeMs }) },
      now,
    );
    server.saveToken(token);
    return { ...withoutHash(token), token: tokenText(coordinatorKey, secret) };
  }

  #revoke(id: string): Json {
    const { server } = this.#options;
    const token = server.tokens.withId(id);
    if (!token) throw new ApiError(`there is no token ${JSON.stringify(id)}`);
    server.saveToken({ ...token, isRevoked: true });
    return withoutHash(server.tokens.withId(id)!);
  }
}

/** Keys as text, both of them: nodes are told the one as numbers. */
function shown(node: NodeRecord): Json {
  return { ...recordJson(node), disco_pubkey: keyBase64(node.discoKey) };
}

function withoutHash(token: Parameters<typeof tokenJson>[0]): Json {
  const { hash: _, ...shown } = tokenJson(token);
  return shown;
}
