/** Services: systemd units for the programs, installed and removed step by step. */
export { applyStep, hasSystemd, presentFiles, unitsNamed } from "./apply.ts";
export { ServiceManager } from "./manager.ts";
export {
  configPath,
  type InstallOptions,
  installSteps,
  type Present,
  runningUnit,
  type Step,
  stepText,
  type UninstallOptions,
  uninstallSteps,
} from "./plan.ts";
export { SERVICE_USER, type ServiceKind, unitName, type UnitOptions, unitText } from "./units.ts";
