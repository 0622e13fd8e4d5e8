import { testBulk } from "../../bulk_scenarios.ts";

testBulk(["tun", "fou"], { megabytes: 50, ssh: true });
