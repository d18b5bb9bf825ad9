/** A store that forgets everything with the page. */

import type { Cursor } from "../core/cursor.ts";
import type { KhalaEvent } from "../events.ts";
import { cursorAfter, decideBegin, decideCommit, type Store } from "./store.ts";

export class MemoryStore implements Store {
  readonly isPersistent = false;
  private readonly cursors = new Map<string, Cursor>();
  private readonly events = new Map<string, KhalaEvent[]>();

  /** Keep cursors, and the events too unless `keepEvents` is false. */
  constructor(private readonly keepEvents = true) {}

  async loadCursor(topic: string): Promise<Cursor | null> {
    return this.cursors.get(topic) ?? null;
  }

  async begin(cursor: Cursor): Promise<void> {
    const written = decideBegin(this.cursors.get(cursor.topic) ?? null, cursor);
    if (written === null) return;
    this.cursors.set(cursor.topic, written);
    this.events.set(cursor.topic, []);
  }

  async commit(events: readonly KhalaEvent[], lineage: string): Promise<Cursor> {
    const topic = events[0]!.topic;
    const stored = this.cursors.get(topic) ?? null;
    const fresh = decideCommit(stored, events, lineage);
    const last = fresh.at(-1);
    if (last === undefined) return stored!;
    const cursor = cursorAfter(last, lineage);
    this.cursors.set(topic, cursor);
    if (this.keepEvents) this.events.get(topic)!.push(...fresh);
    return cursor;
  }

  async readEvents(topic: string, afterSeq: bigint, limit: number): Promise<readonly KhalaEvent[]> {
    return (this.events.get(topic) ?? []).filter((event) => event.seq > afterSeq).slice(0, limit);
  }

  async forget(topic: string | null): Promise<void> {
    for (const each of topic === null ? [...this.cursors.keys()] : [topic]) {
      this.cursors.delete(each);
      this.events.delete(each);
    }
  }
}
