/** A real Prometheus scrapes an overlay: the dashboard's queries and the alert rules mean something. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { Overlay, type OverlayNode, until } from "../overlay.ts";
import { twoNodes } from "../up_scenarios.ts";

const docs = new URL("../../docs/", import.meta.url).pathname;
const ALERTS = `${docs}alerts.yml`;
const SERVER = "127.0.0.1:9090";
const SCRAPES = 12;

interface Dashboard {
  panels: { title: string; targets?: { expr: string }[] }[];
}

interface QueryAnswer {
  status: string;
  error?: string;
  data?: { result: { metric: Record<string, string>; value: [number, string] }[] };
}

/** Prometheus on a node of the overlay: it scrapes the other one through the tunnel. */
class Prometheus {
  readonly #node: OverlayNode;

  private constructor(node: OverlayNode) {
    this.#node = node;
  }

  static async start(node: OverlayNode, directory: string, targets: string[]): Promise<Prometheus> {
    Deno.writeTextFileSync(
      `${directory}/prometheus.yml`,
      JSON.stringify({
        global: { scrape_interval: "1s", evaluation_interval: "1s" },
        scrape_configs: [{ job_name: "gretun", static_configs: [{ targets }] }],
        rule_files: [ALERTS],
      }),
    );
    node.host.spawn("prometheus", [
      `--config.file=${directory}/prometheus.yml`,
      `--storage.tsdb.path=${directory}/tsdb`,
      `--web.listen-address=${SERVER}`,
    ]);
    const server = new Prometheus(node);
    const isScraped = async () => {
      const query = `count(count_over_time(up[1m]) >= ${SCRAPES})`;
      const [all] = await server.query(query).catch(() => []);
      return Number(all?.value[1]) === targets.length;
    };
    await until("Prometheus to scrape each target some times", isScraped, () => node.log);
    return server;
  }

  async query(expression: string) {
    const answer = await this.#get<QueryAnswer>(
      `/api/v1/query?query=${encodeURIComponent(expression)}`,
    );
    strictEqual(answer.status, "success", `${expression}: ${answer.error}`);
    return answer.data!.result;
  }

  async rules(): Promise<{ name: string; health: string; lastError?: string }[]> {
    interface Answer {
      data: { groups: { rules: { name: string; health: string; lastError?: string }[] }[] };
    }
    const answer = await this.#get<Answer>("/api/v1/rules");
    return answer.data.groups.flatMap(({ rules }) => rules);
  }

  async #get<T>(path: string): Promise<T> {
    const { code, stdout, stderr } = await this.#node.host.run("curl", [
      ...["-sS", "--max-time", "10", `http://${SERVER}${path}`],
    ]);
    strictEqual(code, 0, stderr);
    return JSON.parse(stdout);
  }
}

function dashboardQueries(): string[] {
  const { panels } = JSON.parse(Deno.readTextFileSync(`${docs}dashboard.json`)) as Dashboard;
  return panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
}

Deno.test("promtool accepts the alert rules", () => {
  const args = ["check", "rules", ALERTS];
  const { code, stdout, stderr } = new Deno.Command("promtool", { args }).outputSync();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  strictEqual(code, 0, text);
});

Deno.test("every query of the dashboard returns data from a real Prometheus, and alerts notice", async () => {
  await using overlay = await Overlay.start({ coordArgs: ["--metrics-addr", ":9101"] });
  const [alice, bob] = await twoNodes(overlay, ["tun", "tun"], ["--metrics-addr", ":9100"]);
  await alice.transfers(bob);
  const prometheus = await Prometheus.start(alice, overlay.directory, [
    "127.0.0.1:9100",
    `${await bob.tunnelIp()}:9100`,
    `${overlay.coord.ip}:9101`,
  ]);
  const queries = dashboardQueries();
  ok(queries.length > 30);
  const empty = [];
  for (const query of queries) {
    const result = await prometheus.query(query.replaceAll("$__rate_interval", "10s"));
    if (result.length === 0) empty.push(query);
  }
  deepStrictEqual(empty, []);

  const [path] = await prometheus.query('gretun_peer_path{instance="127.0.0.1:9100"}');
  strictEqual(path!.metric.peer, "bob");
  strictEqual(path!.metric.path, "direct");
  const [received] = await prometheus.query('sum(gretun_peer_received_bytes_total{peer="bob"})');
  ok(Number(received!.value[1]) > 1024 * 1024, JSON.stringify(received));
  const [nodes] = await prometheus.query('gretun_coord_nodes{state="listed"}');
  strictEqual(nodes!.value[1], "2");

  for (const target of ["127.0.0.1:9100", `${overlay.coord.ip}:9101`]) {
    const check = `curl -sS http://${target}/metrics | promtool check metrics`;
    const { code, stdout, stderr } = await alice.host.run("sh", ["-c", check]);
    strictEqual(code, 0, `${target}: ${stdout}${stderr}`);
  }

  const rules = await prometheus.rules();
  ok(rules.length >= 10);
  deepStrictEqual(rules.filter(({ health }) => health !== "ok"), []);
  await overlay.killCoordinator();
  await until("Prometheus to see that the coordinator is away", async () => {
    const away = await prometheus.query("gretun_coordinator_up == 0");
    const down = await prometheus.query('up{job="gretun"} == 0');
    return away.length === 2 && down.length === 1;
  });
});
