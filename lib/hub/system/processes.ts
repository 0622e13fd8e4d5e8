/** Child processes of this machine. */
import { tryReadKernelFile } from "../../linux/mod.ts";
import { MARK_VARIABLE, type Processes } from "../world.ts";

/** Given to this program by its environment; no program of a link gets them. */
const SECRET_VARIABLES = ["GRETUN_TOKEN", "GRETUN_SECRET", "GRETUN_PRIVATE_KEY"];
/** Field 22 of /proc/PID/stat, counted from the one after the name in parentheses. */
const START_TIME_FIELD = 19;
const STREAMS = { stdin: "null", stdout: "inherit", stderr: "inherit" } as const;

export const systemProcesses: Processes = {
  spawn([command, ...args], env) {
    const options = { args, ...environment(env), ...STREAMS, detached: true };
    return new Deno.Command(command!, options).spawn();
  },
  async shell(command, env, signal) {
    const options = { args: ["-c", command], ...environment(env), ...STREAMS, signal };
    return (await new Deno.Command("/bin/sh", options).spawn().status).code;
  },
  signalGroup(pid, signal) {
    try {
      Deno.kill(-pid, signal);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // it has ended
    }
  },
  facts(pid) {
    const startTime = startTimeOf(pid);
    if (startTime === undefined) return undefined;
    const mark = markOf(pid);
    return { startTime, ...(mark === undefined ? {} : { mark }) };
  },
};

function environment(env: Readonly<Record<string, string>>) {
  const inherited = Deno.env.toObject();
  for (const name of SECRET_VARIABLES) delete inherited[name];
  return { env: { ...inherited, ...env }, clearEnv: true };
}

function startTimeOf(pid: number): string | undefined {
  const stat = tryReadKernelFile(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields[0] === "Z" ? undefined : fields[START_TIME_FIELD];
}

function markOf(pid: number): string | undefined {
  const prefix = `${MARK_VARIABLE}=`;
  return tryReadKernelFile(`/proc/${pid}/environ`)?.split("\0").find((each) =>
    each.startsWith(prefix)
  )
    ?.slice(prefix.length);
}
