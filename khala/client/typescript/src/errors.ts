/**
 * What a call of the client may throw; one class per thing that its caller must do.
 *
 * Everything is a KhalaError with the registry's code, so that a caller which knows none of the classes
 * can still act on `advice`. Messages carry identifiers and the registry's constant text, never tokens
 * and never payloads.
 */

import { isRetryable, reasonCode } from "./core/reason_codes.ts";
import type { Advice } from "./gen/reason_codes.ts";
import type { StaleReason } from "./wire/server_messages.ts";

/** Facts of a refusal; everything has a default from the registry. */
export interface ErrorFacts {
  readonly message?: string;
  readonly retryable?: boolean;
  readonly retryAfterMs?: number;
  readonly details?: Readonly<Record<string, string>>;
  readonly topic?: string | null;
  readonly docs?: string;
  readonly requestId?: string;
}

/** A refusal or an ending, as the registry of reason codes names it. */
export class KhalaError extends Error {
  override readonly name: string = "KhalaError";
  readonly advice: Advice;
  /** The same call may succeed later without a change. */
  readonly retryable: boolean;
  /** Earliest useful time for that, 0 if there is no particular one. */
  readonly retryAfterMs: number;
  readonly details: Readonly<Record<string, string>>;
  /** Set if one topic is concerned. */
  readonly topic: string | null;
  /** Link to the page of the code. */
  readonly docs: string;
  readonly requestId: string;

  constructor(
    readonly code: string,
    facts: ErrorFacts = {},
  ) {
    const row = reasonCode(code);
    super(facts.message || row?.text || code);
    this.retryable = facts.retryable ?? (row !== undefined && isRetryable(row));
    const advice = row?.advice ?? "give_up";
    this.advice = !this.retryable && (advice === "retry_now" || advice === "retry_backoff") ? "give_up" : advice;
    this.retryAfterMs = facts.retryAfterMs ?? 0;
    this.details = facts.details ?? {};
    this.topic = facts.topic ?? null;
    this.docs = facts.docs || row?.docs || "";
    this.requestId = facts.requestId ?? "";
  }
}

/** The cursor cannot be continued; read history or start at `earliest`, then follow. */
export class StaleCursor extends KhalaError {
  override readonly name: string = "StaleCursor";
  readonly lineage: string;
  readonly headSeq: bigint;
  readonly floorSeq: bigint;
  readonly floorChain: Uint8Array<ArrayBuffer> | null;

  constructor(
    topic: string,
    readonly reason: StaleReason,
    seen: {
      readonly lineage?: string;
      readonly headSeq?: bigint;
      readonly floorSeq?: bigint;
      readonly floorChain?: Uint8Array<ArrayBuffer>;
      readonly details?: Readonly<Record<string, string>>;
    } = {},
  ) {
    super(`stale_cursor.${reason}`, { topic, details: seen.details ?? {} });
    this.lineage = seen.lineage ?? "";
    this.headSeq = seen.headSeq ?? 0n;
    this.floorSeq = seen.floorSeq ?? 1n;
    this.floorChain = seen.floorChain ?? null;
  }
}

/** What was applied is not what the authority holds: the chains differ at `seq`. */
export class ChainMismatch extends StaleCursor {
  override readonly name = "ChainMismatch";

  constructor(
    topic: string,
    readonly seq: bigint,
    lineage: string,
  ) {
    super(topic, "lineage_mismatch", { lineage, details: { chain_differs_at: seq.toString() } });
  }
}

/** The credential is used up or revoked: sign in again. Retrying does not help. */
export class ReauthRequired extends KhalaError {
  override readonly name = "ReauthRequired";
}

/** This client is too old for the server; load the page again. */
export class UpgradeRequired extends KhalaError {
  override readonly name = "UpgradeRequired";
}

/** Not allowed, or it does not exist: the two look the same on purpose. */
export class Forbidden extends KhalaError {
  override readonly name = "Forbidden";
}

/** No answer, or a server in trouble. Retry is safe. */
export class Unavailable extends KhalaError {
  override readonly name = "Unavailable";

  constructor(message = "", facts: ErrorFacts & { readonly code?: string } = {}) {
    super(facts.code ?? "unavailable", { ...facts, message, retryable: true });
  }
}

/** The store moved on without this follower (another lineage was begun there); start again. */
export class StoreConflict extends Error {
  override readonly name = "StoreConflict";
}

/** The store could not do it now (quota, closed, private mode); nothing of it was written. */
export class StoreFailed extends Error {
  override readonly name = "StoreFailed";
}

const REAUTH: ReadonlySet<string> = new Set([
  "unauthenticated",
  "reauth_required",
  "token_expired",
  "token_invalid",
  "token_replayed",
]);
const STALE_PREFIX = "stale_cursor.";

/** Return the error whose class fits a code that came from a server. */
export function errorFor(code: string, facts: ErrorFacts = {}): KhalaError {
  const topic = facts.topic || facts.details?.["topic"] || null;
  const row = reasonCode(code);
  if (row === undefined) {
    const details = { ...facts.details, code };
    return new KhalaError("internal", { ...facts, topic, details, retryable: false });
  }
  if (code.startsWith(STALE_PREFIX)) {
    const reason = code.slice(STALE_PREFIX.length) as StaleReason;
    return new StaleCursor(topic ?? "", reason, { details: facts.details ?? {} });
  }
  if (facts.retryable ?? isRetryable(row)) return new Unavailable(facts.message, { ...facts, topic, code });
  const refused = { ...facts, topic, retryable: false };
  if (code === "forbidden") return new Forbidden(code, refused);
  if (code === "upgrade_required") return new UpgradeRequired(code, refused);
  return REAUTH.has(code) ? new ReauthRequired(code, refused) : new KhalaError(code, refused);
}
