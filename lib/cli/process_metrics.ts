/** What every program tells of itself, under the names that Prometheus' own clients use. */
import { listKernelDirectory, readKernelFile } from "../linux/mod.ts";
import { Metrics } from "../metrics.ts";
import denoJson from "../../deno.json" with { type: "json" };

/** Of /proc/self/stat, which the kernel counts in hundredths of a second for programs. */
const TICKS_PER_SECOND = 100;
/** Fields of /proc/self/stat after the name, proc_pid_stat(5): utime and stime. */
const UTIME = 11;
const STIME = 12;

export class ProcessMetrics extends Metrics {
  readonly #cpu = this.counter("process_cpu_seconds_total", "CPU time of the process");

  constructor() {
    super();
    const labels = { version: denoJson.version, runtime: `deno ${Deno.version.deno}` };
    this.gauge("gretun_build_info", "Always 1", ["version", "runtime"]).set(labels, 1);
    this.gauge("process_start_time_seconds", "When the process began, since 1970")
      .set(performance.timeOrigin / 1000);
    this.gaugeOf(
      "process_resident_memory_bytes",
      "Memory of the process",
      () => Deno.memoryUsage().rss,
    );
    this.gaugeOf(
      "process_open_fds",
      "Descriptors that are open",
      () => listKernelDirectory("/proc/self/fd").length,
    );
    this.gauge("process_max_fds", "Descriptors that may be open").set(maxDescriptors());
  }

  override async text(): Promise<string> {
    this.#cpu.reset();
    this.#cpu.inc(cpuSeconds());
    return await super.text();
  }
}

function maxDescriptors(): number {
  const soft = /^Max open files\s+(\d+)/m.exec(readKernelFile("/proc/self/limits"))?.[1];
  return soft === undefined ? Infinity : Number(soft);
}

function cpuSeconds(): number {
  // The name is in parentheses, and may have some itself.
  const fields = readKernelFile("/proc/self/stat").replace(/^.*\) /s, "").split(" ");
  return (Number(fields[UTIME]) + Number(fields[STIME])) / TICKS_PER_SECOND;
}
