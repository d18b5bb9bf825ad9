/**
 * What to do after a refusal or an ending. Pure; made from the registry of reason codes.
 *
 * The range carries the rule where the registry has no row: 4000-4499 reconnect and resume, 4500-4999
 * do not. A code that this client does not know counts as `internal` and is not retried. Endings
 * without a code of ours (a reset, 1006, 1001 of a proxy) are trouble on the way: resume with backoff.
 */

import type { Advice } from "../gen/reason_codes.ts";
import { reasonCode, reasonCodeOfClose } from "./reason_codes.ts";

/**
 * `resume`: reconnect with a fresh token and resume every topic after its cursor. `mint`: as resume, but
 * once: if fresh authority ends the same way, sign in again. `rebootstrap`: this cursor is of no use any
 * more; the others are. `upgrade`, `give_up`: stop.
 */
export type NextStep = "resume" | "mint" | "rebootstrap" | "upgrade" | "give_up";

/** What to do about one ending; `isImmediate` where waiting first has no use. */
export interface Advised {
  readonly code: string;
  readonly step: NextStep;
  readonly isImmediate: boolean;
}

const STEPS: Readonly<Record<Advice, readonly [NextStep, boolean]>> = {
  retry_now: ["resume", true],
  retry_backoff: ["resume", false],
  reauthenticate: ["mint", true],
  rebootstrap: ["rebootstrap", false],
  upgrade: ["upgrade", false],
  give_up: ["give_up", false],
};

/** Return what to do about a registry name, from an error message or an HTTP body. */
export function adviseCode(code: string): Advised {
  const row = reasonCode(code);
  if (row === undefined) return { code: "internal", step: "give_up", isImmediate: false };
  const [step, isImmediate] = STEPS[row.advice];
  return { code: row.name, step, isImmediate };
}

/**
 * Return what to do after a connection ended.
 *
 * @param closeCode - Code of the close frame; null if there was none.
 * @param errorCode - Registry name of the error message before it, if any. It says what happened; the
 *   range of `closeCode` says whether to come back.
 */
export function adviseClose(closeCode: number | null, errorCode: string | null): Advised {
  const named = errorCode === null ? undefined : reasonCode(errorCode);
  const byClose = closeCode === null ? undefined : reasonCodeOfClose(closeCode);
  if (closeCode !== null && closeCode >= 4000 && closeCode < 4500) {
    const row = named ?? byClose;
    if (row === undefined) return { code: "unavailable", step: "resume", isImmediate: false };
    const isImmediate = row.advice === "retry_now" || row.advice === "reauthenticate";
    return { code: row.name, step: "resume", isImmediate };
  }
  if (closeCode !== null && ((closeCode >= 4500 && closeCode < 5000) || byClose !== undefined)) {
    const advised = adviseCode((named ?? byClose)?.name ?? "");
    // An error that would be retryable elsewhere does not open a range that says "do not".
    return advised.step === "resume" ? { ...advised, step: "give_up", isImmediate: false } : advised;
  }
  if (named !== undefined) {
    const advised = adviseCode(named.name);
    if (advised.step === "upgrade" || advised.step === "mint") return advised;
  }
  return { code: "unavailable", step: "resume", isImmediate: false };
}
