/** `gretun-coord uninstall`: takes back what `gretun-coord install` did. */
import { uninstallCommand } from "../service.ts";

export const command = uninstallCommand(
  "coord",
  "stop the service and remove program, unit and database",
);
