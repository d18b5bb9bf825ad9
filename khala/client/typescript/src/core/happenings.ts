/**
 * What the sans-IO machines report to the ring around them. Pure values.
 *
 * `Output` is what one step returns: texts to send in this order, happenings to act on in this order,
 * and whether to close. The ring performs it before it takes the next step.
 */

import type { KhalaError } from "../errors.ts";
import type { ErrorMessage, Frame, Welcome } from "../wire/server_messages.ts";
import type { Bytes } from "../wire/types.ts";
import type { Cursor } from "./cursor.ts";
import type { Link } from "./links.ts";

/** A frame that was accepted, and the chain that seals the topic up to and including it. */
export interface SealedFrame {
  readonly frame: Frame;
  readonly chain: Bytes;
}

/** Hash `links` after `chain` (src/chain.ts) and give the result to `sealed` under `ticket`. */
export interface SealDue {
  readonly type: "seal_due";
  readonly topic: string;
  readonly ticket: number;
  readonly chain: Bytes;
  readonly links: readonly Link[];
}
/** Frames that the apply rule accepted, sealed: consecutive, after everything delivered before. */
export interface Delivered {
  readonly type: "delivered";
  readonly topic: string;
  readonly cursor: Cursor;
  readonly frames: readonly SealedFrame[];
}
/** The node accepted the subscription; frames `cursor.seq + 1 .. headSeq` come first. */
export interface Replaying {
  readonly type: "replaying";
  readonly topic: string;
  readonly cursor: Cursor;
  readonly headSeq: bigint;
}
/** Everything through `seq` was applied, and the node's chain there equals ours. */
export interface Live {
  readonly type: "live";
  readonly topic: string;
  readonly seq: bigint;
  readonly chain: Bytes;
}
/** The node stated (seq, chain) for a position of ours, and the chains are equal. */
export interface Verified {
  readonly type: "verified";
  readonly topic: string;
  readonly seq: bigint;
  readonly chain: Bytes;
}
/** A heartbeat's news about one topic; estimates of what is left before the cursor goes stale. */
export interface HeadSeen {
  readonly type: "head_seen";
  readonly topic: string;
  readonly headSeq: bigint;
  readonly headroomFrames: bigint;
  readonly headroomMs: bigint;
}
/** We take less than the topic produces; nothing is lost. */
export interface Lagged {
  readonly type: "lagged";
  readonly topic: string;
  readonly fromSeq: bigint;
  readonly headSeq: bigint;
}
/** A defect of the path: frames are missing on the wire. The topic resumes after its cursor. */
export interface GapSeen {
  readonly type: "gap_seen";
  readonly topic: string;
  readonly expectedSeq: bigint;
  readonly seq: bigint;
}
/** The node let go of a topic that was taken too slowly; it is resumed in `delayMs` by itself. */
export interface Released {
  readonly type: "released";
  readonly topic: string;
  readonly delayMs: number;
}
/** One topic was refused for now; it is asked for again in `delayMs`. */
export interface Retrying {
  readonly type: "retrying";
  readonly topic: string;
  readonly code: string;
  readonly delayMs: number;
}
/** This subscription is over; `error` says why. Other topics stay. */
export interface TopicEnded {
  readonly type: "topic_ended";
  readonly topic: string;
  readonly error: KhalaError;
}

/** What concerns one topic and is told to whoever follows it. */
export type TopicHappening =
  Delivered | Replaying | Live | Verified | HeadSeen | Lagged | GapSeen | Released | Retrying | TopicEnded;

export type Happening =
  | TopicHappening
  | SealDue
  | { readonly type: "welcomed"; readonly welcome: Welcome }
  /** Mint a token for all followed topics and hand it to `renew`. */
  | { readonly type: "token_due" }
  /** The node leaves: the machine closes when it is told, and connects again in `reconnectAfterMs`. */
  | { readonly type: "leave_asked"; readonly reconnectAfterMs: number }
  /** An error about the whole connection; its close follows. */
  | { readonly type: "server_refused"; readonly error: ErrorMessage };

/** Close the socket with `code`; `reason` is for the log. */
export interface CloseRequest {
  readonly code: number;
  readonly reason: string;
}

/** The I/O that one step asks for. */
export interface Output {
  readonly send: readonly string[];
  readonly happenings: readonly Happening[];
  readonly close: CloseRequest | null;
}

export const NOTHING: Output = { send: [], happenings: [], close: null };

/** Return an output; what is not given is empty. */
export function output(parts: Partial<Output>): Output {
  return { ...NOTHING, ...parts };
}
