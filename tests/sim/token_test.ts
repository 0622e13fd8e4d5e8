/** Who may join: a coordinator with a token takes new nodes with a token only. */
import { ok, strictEqual } from "node:assert/strict";
import { TOKEN_SECRET_LENGTH } from "../../lib/coord/api.ts";
import { hashOf } from "../../lib/coord/tokens.ts";
import { World } from "./world/mod.ts";

Deno.test("the first token closes a coordinator; who brings it joins, who is in stays in", async () => {
  await using world = new World();
  const coordinator = await world.coordinator();
  const a = await world.up(world.publicHost("a"), coordinator);
  ok(await world.until(() => a.tunnelIp !== undefined, 5_000));
  const secret = new Uint8Array(TOKEN_SECRET_LENGTH).fill(7);
  const server = coordinator.server!;
  server.saveToken(server.tokens.make(await hashOf(secret), { tags: [], isApproving: true }, 0));
  const stranger = await world.up(world.publicHost("stranger"), coordinator);
  const b = await world.up(world.publicHost("b"), coordinator, { tokenSecret: secret });
  ok(await world.connects(a, b, 10_000));
  await world.run(30_000);
  strictEqual(stranger.tunnelIp, undefined);
  strictEqual(stranger.ended, undefined, "it waits, and says why");
  ok(stranger.said(/takes new nodes with a token only/).length > 0);
  strictEqual(a.peer(stranger), undefined);
});
