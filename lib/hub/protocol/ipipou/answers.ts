/**
 * Whether anybody is there: pure, time is an argument. ipipou's hub answers a packet that moved the
 * tunnel, if it is told to, and nothing else; what tells as much is data that comes back.
 */

/** Without a sign of the hub after we came or moved. */
const ANSWER_WAIT_MS = 5_000;
/** While only our own data flows. */
const SILENCE_MS = 30_000;

export interface Answers {
  state: "connecting" | "up" | "unanswered";
  /** Nothing was heard since, though something could have been; Infinity: nothing is waited for. */
  deadlineMs: number;
  rxPackets: number;
  txPackets: number;
}

export type AnswersEvent =
  /** We said who we are, from where the hub does not expect us. */
  | { kind: "came"; nowMs: number }
  /** A packet of the hub's. */
  | { kind: "heard" }
  /** The link's counters, looked at again and again. */
  | { kind: "counted"; nowMs: number; rxPackets: number; txPackets: number };

export function newAnswers(): Answers {
  return { state: "connecting", deadlineMs: Infinity, rxPackets: 0, txPackets: 0 };
}

export function stepAnswers(answers: Answers, event: AnswersEvent): Answers {
  switch (event.kind) {
    case "came":
      return { ...answers, deadlineMs: event.nowMs + ANSWER_WAIT_MS };
    case "heard":
      return { ...answers, state: "up", deadlineMs: Infinity };
    case "counted":
      return counted(answers, event);
    default:
      return event satisfies never;
  }
}

function counted(
  answers: Answers,
  { nowMs, rxPackets, txPackets }: AnswersEvent & { kind: "counted" },
): Answers {
  const next = { ...answers, rxPackets, txPackets };
  // Fewer: the link was made anew.
  if (rxPackets > answers.rxPackets) return stepAnswers(next, { kind: "heard" });
  if (nowMs >= answers.deadlineMs) return { ...next, state: "unanswered", deadlineMs: Infinity };
  const isSending = txPackets > answers.txPackets && answers.state === "up";
  if (!isSending || answers.deadlineMs !== Infinity) return next;
  return { ...next, deadlineMs: nowMs + SILENCE_MS };
}
