import { testMovedPort } from "../open_input_scenarios.ts";

Deno.test("tun: a router that has moved a host's port, and another NAT", () => testMovedPort({}));
