/**
 * Errors that know nothing of where they were made: Deno looks at the stack for each, which costs more
 * than most decoders do. To be imported before what throws them.
 */
for (const name of ["Error", "RangeError", "SyntaxError", "TypeError"] as const) {
  const builtin = globalThis[name];
  const cheap = function (this: Error | undefined, message?: string, options?: ErrorOptions) {
    const error = new.target ? this! : Object.create(builtin.prototype);
    if (message !== undefined) error.message = String(message);
    if (options && "cause" in options) error.cause = options.cause;
    return error;
  };
  cheap.prototype = builtin.prototype;
  Object.setPrototypeOf(cheap, builtin);
  Reflect.set(globalThis, name, cheap);
}
export {};
