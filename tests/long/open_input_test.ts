import { OPEN_INPUT, testMovedPort } from "../open_input_scenarios.ts";

Deno.test("tun: a router that has moved a host's port, and such a router too", () =>
  testMovedPort(OPEN_INPUT));
