/** What a follower is told beside the events: how the stream is doing. Types only. */

import type { GapSeen, HeadSeen, Lagged, Live, Released, Replaying, Retrying, Verified } from "./core/happenings.ts";
import type { KhalaError } from "./errors.ts";

/** A connection is being made. */
export interface Connecting {
  readonly type: "connecting";
}
/** The connection is open; quote its id when you report a problem. */
export interface Connected {
  readonly type: "connected";
  readonly connectionId: string;
  readonly nodeId: string;
}
/** The connection ended, or could not be made; the next attempt comes in `retryInMs`. */
export interface Disconnected {
  readonly type: "disconnected";
  readonly code: string;
  readonly retryInMs: number;
}
/** A page of history was read over HTTP, because it lies beyond what is replayed. */
export interface HistoryRead {
  readonly type: "history_read";
  readonly topic: string;
  readonly throughSeq: bigint;
  readonly headSeq: bigint;
}
/** The browser's storage refused; from here on everything is kept in memory only. */
export interface StoreDegraded {
  readonly type: "store_degraded";
  readonly reason: string;
}

export type LinkNotice = Connecting | Connected | Disconnected;

export type Notice =
  | LinkNotice
  | GapSeen
  | HeadSeen
  | HistoryRead
  | Lagged
  | Live
  | Released
  | Replaying
  | Retrying
  | StoreDegraded
  | Verified;

/**
 * Where a subscription is. `connecting`: the first attempt is under way; `replaying`: what is missing is
 * coming; `live`: everything that was committed has arrived, verified; `offline`: no connection, it comes
 * back by itself; `ended`: over, `error` says why (null: closed by the page).
 */
export type Status =
  | { readonly state: "connecting" }
  | { readonly state: "replaying"; readonly headSeq: bigint }
  | { readonly state: "live" }
  | { readonly state: "offline"; readonly code: string; readonly retryInMs: number }
  | { readonly state: "ended"; readonly error: KhalaError | Error | null };
