/**
 * Where a follower stands in one topic. Pure values.
 *
 * A cursor is what was last *applied*; only applying moves it, and resuming means *after* it. How far a
 * node has sent is the node's business and never appears here.
 */

import type * as m from "../gen/messages.ts";
import type { Bytes } from "../wire/types.ts";

export interface Cursor {
  readonly topic: string;
  /** Last applied position; 0 means that nothing was applied yet. */
  readonly seq: bigint;
  /** History to which seq belongs; empty only at seq 0. */
  readonly lineage: string;
  /** Chain at seq, or null if it is not known. With it the node tells another history from ours. */
  readonly chain: Bytes | null;
}

export type FromWord = "beginning" | "earliest" | "now";

/** Where a subscription begins: after a cursor, or at one of three words. */
export type After = Cursor | FromWord;

export const SEQ_MAX = 2n ** 63n - 1n;

/** Return `cursor` if it can be one; throws RangeError otherwise. */
export function checkCursor(cursor: Cursor): Cursor {
  const { topic, seq, lineage, chain } = cursor;
  if (seq < 0n || seq > SEQ_MAX) throw new RangeError(`seq ${seq} of ${topic} is outside 0..${SEQ_MAX}`);
  if (seq > 0n && lineage === "") throw new RangeError(`a cursor above 0 needs its lineage: ${topic} seq=${seq}`);
  if (chain !== null && chain.length !== 32) throw new RangeError(`a chain has 32 bytes: ${topic} seq=${seq}`);
  return cursor;
}

/** Return what a subscribe message says for `after`. */
export function subscriptionOf(topic: string, after: After): m.TopicSubscription {
  if (typeof after === "string") return { topic, from: `SUBSCRIBE_FROM_${after.toUpperCase()}` };
  return {
    topic,
    cursor: { seq: after.seq, lineage: after.lineage, chain: after.chain ?? new Uint8Array() },
  };
}
