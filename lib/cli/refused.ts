/** A line for what was refused, by reason; empty when nothing was. */
export function refusedText(refused: Record<string, number>): string {
  const reasons = Object.entries(refused).map(([reason, n]) => `${reason} ${n}`);
  return reasons.length === 0 ? "" : `Refused packets: ${reasons.join(", ")}.\n`;
}
