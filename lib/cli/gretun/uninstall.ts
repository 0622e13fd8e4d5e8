/** `gretun uninstall`: takes back what `gretun install` did. */
import { uninstallCommand } from "../service.ts";

export const command = uninstallCommand(
  "up",
  "stop the services and remove program, units and state",
);
