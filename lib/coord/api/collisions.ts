/** What nodes say of overlay addresses that their hosts cannot take. */
import { type Json, listOf, parseShape, required, shapeJson, text } from "./json.ts";

export const MAX_COLLISIONS = 32;
export const MAX_COLLISION_LENGTH = 200;

/** Each as in "100.64.0.3 collides with 100.64.0.0/24 of lan0". */
const COLLISIONS = {
  collisions: required(
    "collisions",
    listOf(text(MAX_COLLISION_LENGTH), MAX_COLLISIONS, "collision"),
  ),
};

export const collisionsJson = (collisions: readonly string[]): Json =>
  shapeJson(COLLISIONS, { collisions: [...collisions] });
export const parseCollisions = (value: unknown): string[] =>
  parseShape(COLLISIONS, value).collisions;
