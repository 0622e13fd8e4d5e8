/** Kernel modules, loaded by the system's own program: it knows aliases, options and deny lists. */

/** Whether `modprobe` found the module, or the kernel has it built in. Needs CAP_SYS_MODULE. */
export function loadModule(name: string): boolean {
  const PATH = `/usr/sbin:/sbin:${Deno.env.get("PATH") ?? ""}`;
  try {
    const command = new Deno.Command("modprobe", {
      args: ["--quiet", name],
      env: { PATH },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    });
    return command.outputSync().success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
