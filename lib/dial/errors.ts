/** What can go wrong on the way to a server, in words. */
import { GretunError } from "../errors.ts";

/** No connection, or nothing of use at its other end. */
export class DialError extends GretunError {
  override name = "DialError";
}

/** The server's host is there, and nobody listens at that port of any of its addresses. */
export class NobodyListensError extends DialError {}

/** A second connection is wanted. */
export class DialAgainError extends Error {
  override name = "DialAgainError";
}
