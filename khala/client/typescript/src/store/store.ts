/**
 * Where applied events and their cursor are kept, together.
 *
 * A cursor without its events would skip them after a reload, events without their cursor would repeat
 * them: so `commit` writes both in one transaction or nothing. Several followers may share a store (two
 * tabs of one page): inside the transaction what is already there is skipped, a hole or another lineage
 * is refused, and the cursor never goes back.
 */

import type { Cursor } from "../core/cursor.ts";
import { StoreConflict } from "../errors.ts";
import type { KhalaEvent } from "../events.ts";
import { areBytesEqual } from "../wire/bytes.ts";

export interface Store {
  /** False if everything is forgotten with the page. */
  readonly isPersistent: boolean;

  /** Return the committed cursor; null if nothing of `topic` is stored. */
  loadCursor(topic: string): Promise<Cursor | null>;

  /**
   * Start to keep `cursor.topic` after `cursor`, unless another follower has begun already.
   *
   * @throws StoreConflict - what is there belongs to another lineage, or ends before `cursor`.
   */
  begin(cursor: Cursor): Promise<void>;

  /**
   * Keep `events`, consecutive events of one topic, and move the cursor to the last; what another
   * follower has committed meanwhile is left as it is.
   *
   * @returns The cursor afterwards; it may be beyond the last of `events`.
   * @throws StoreConflict - they do not follow the stored cursor. Nothing was changed.
   * @throws StoreFailed - the storage refused. Nothing was changed.
   */
  commit(events: readonly KhalaEvent[], lineage: string): Promise<Cursor>;

  /** Return up to `limit` kept events of `topic` after `afterSeq`, ascending. */
  readEvents(topic: string, afterSeq: bigint, limit: number): Promise<readonly KhalaEvent[]>;

  /** Drop cursor and events of `topic`; every topic if it is null. */
  forget(topic: string | null): Promise<void>;
}

/** Return what `begin` has to write: `cursor`, or null if what is there stays. */
export function decideBegin(stored: Cursor | null, cursor: Cursor): Cursor | null {
  if (stored === null || stored.seq === 0n) return cursor;
  if (stored.lineage !== cursor.lineage) throw conflict(cursor.topic, `lineage ${cursor.lineage}`, stored);
  if (stored.seq < cursor.seq) throw conflict(cursor.topic, `seq ${cursor.seq}`, stored);
  return null;
}

/** Return which of `events` are new to a store that stands at `stored`. */
export function decideCommit(
  stored: Cursor | null,
  events: readonly KhalaEvent[],
  lineage: string,
): readonly KhalaEvent[] {
  const first = events[0]!;
  if (stored === null) throw new StoreConflict(`${first.topic}: nothing is kept here any more`);
  if (stored.lineage !== lineage) throw conflict(first.topic, `lineage ${lineage}`, stored);
  for (const [index, event] of events.entries()) {
    if (event.topic !== first.topic || event.seq !== first.seq + BigInt(index)) {
      throw new StoreConflict(`${first.topic}: events are not consecutive at seq ${event.seq}`);
    }
    const isSame = event.seq !== stored.seq || stored.chain === null || areBytesEqual(event.chain, stored.chain);
    if (!isSame) throw conflict(event.topic, `another chain at seq ${event.seq}`, stored);
  }
  if (first.seq > stored.seq + 1n) throw conflict(first.topic, `seq ${first.seq}`, stored);
  return events.filter((event) => event.seq > stored.seq);
}

/** Return the cursor after an event. */
export function cursorAfter(event: KhalaEvent, lineage: string): Cursor {
  return { topic: event.topic, seq: event.seq, lineage, chain: event.chain };
}

function conflict(topic: string, what: string, stored: Cursor): StoreConflict {
  return new StoreConflict(`${topic}: ${what} does not follow seq ${stored.seq} of ${stored.lineage}`);
}
