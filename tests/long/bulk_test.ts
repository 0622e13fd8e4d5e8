import { testBulk } from "../bulk_scenarios.ts";

testBulk(["tun", "tun"], { megabytes: 1000, ssh: true });
