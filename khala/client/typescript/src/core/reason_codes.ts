/** Look-ups in the generated registry of refusals and endings. Pure. */

import { REASON_CODES, type ReasonCode } from "../gen/reason_codes.ts";

const BY_NAME: ReadonlyMap<string, ReasonCode> = new Map(REASON_CODES.map((row) => [row.name, row]));

// Several rows may share a close code (4500, 4502); they share its range, and where no error message
// named the row the first one stands for them.
const BY_CLOSE_CODE = new Map<number, ReasonCode>();
for (const row of REASON_CODES) {
  if (row.closeCode !== null && !BY_CLOSE_CODE.has(row.closeCode)) BY_CLOSE_CODE.set(row.closeCode, row);
}

/** Return the row of a registry name; undefined for a code that this build does not know. */
export function reasonCode(name: string): ReasonCode | undefined {
  return BY_NAME.get(name);
}

/** Return the row that stands for a WebSocket close code. */
export function reasonCodeOfClose(closeCode: number): ReasonCode | undefined {
  return BY_CLOSE_CODE.get(closeCode);
}

/** Return whether the same call may succeed later without a change by the caller. */
export function isRetryable(row: ReasonCode): boolean {
  return row.advice === "retry_now" || row.advice === "retry_backoff";
}
