/** What can go wrong on the way to a server, in words. */
import { GretunError } from "../errors.ts";

/** No connection, or nothing of use at its other end. */
export class DialError extends GretunError {
  override name = "DialError";
}

/** The server's host is there, and nobody listens at that port of any of its addresses. */
export function nobodyListens(error: unknown): boolean {
  return error instanceof DialError && failedWith(error.cause, "ConnectionRefused");
}

/** Each address, by the name of the runtime's error. */
export function failedWith(cause: unknown, name: string): boolean {
  return cause instanceof AggregateError &&
    cause.errors.every((each) => each instanceof Error && each.name === name);
}

/** A second connection is wanted. */
export class DialAgainError extends Error {
  override name = "DialAgainError";
}
