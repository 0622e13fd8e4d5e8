/** What an ipipou spoke tells of a hub that need not answer. */
import { deepStrictEqual } from "node:assert/strict";
import {
  type Answers,
  type AnswersEvent,
  newAnswers,
  stepAnswers,
} from "../../../lib/hub/protocol/ipipou/answers.ts";

const came = (nowMs: number): AnswersEvent => ({ kind: "came", nowMs });
const heard: AnswersEvent = { kind: "heard" };
const counted = (nowMs: number, rxPackets = 0, txPackets = 0): AnswersEvent => {
  return { kind: "counted", nowMs, rxPackets, txPackets };
};

const CASES: [string, AnswersEvent[], Answers["state"][]][] = [
  ["nobody is there", [came(0), counted(4999), counted(5000), counted(60_000)], [
    ...["connecting", "connecting", "unanswered", "unanswered"] as const,
  ]],
  ["a reply", [came(0), heard, counted(60_000)], ["connecting", "up", "up"]],
  ["data", [came(0), counted(1000, 1), counted(60_000, 1)], ["connecting", "up", "up"]],
  ["data after a long time", [came(0), counted(6000), counted(9000, 1)], [
    ...["connecting", "unanswered", "up"] as const,
  ]],
  ["our own data tells nothing", [came(0), counted(1000, 0, 9), counted(5000, 0, 99)], [
    ...["connecting", "connecting", "unanswered"] as const,
  ]],
  ["an idle tunnel is not asked for answers", [came(0), heard, counted(1e9, 0, 0)], [
    ...["connecting", "up", "up"] as const,
  ]],
  [
    "data that nothing comes back for",
    [
      heard,
      counted(1000, 5, 5),
      counted(2000, 5, 6),
      counted(31_999, 5, 60),
      counted(32_000, 5, 61),
    ],
    ["up", "up", "up", "up", "unanswered"],
  ],
  [
    "something comes back in time",
    [heard, counted(1000, 5, 6), counted(20_000, 6, 9), counted(40_000, 6, 9)],
    ["up", "up", "up", "up"],
  ],
  ["we moved, and nobody answers there", [heard, came(1000), counted(6000, 0)], [
    ...["up", "up", "unanswered"] as const,
  ]],
  ["a link that was made anew", [
    heard,
    counted(1000, 9),
    came(1500),
    counted(2000, 0),
    counted(3000, 1),
  ], [
    ...["up", "up", "up", "up", "up"] as const,
  ]],
];
for (const [name, events, states] of CASES) {
  Deno.test(`ipipou's hub: ${name}`, () => {
    let answers = newAnswers();
    const seen = events.map((event) => (answers = stepAnswers(answers, event)).state);
    deepStrictEqual(seen, states);
  });
}
