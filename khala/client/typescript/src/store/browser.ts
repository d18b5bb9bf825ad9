/**
 * The store of a page: IndexedDB while the browser lets us, memory from the moment it does not.
 *
 * Following must not end because a disk is full or storage is blocked. The change is told once, and
 * `isPersistent` is false from then on: what comes after it is repeated after a reload.
 */

import type { Cursor } from "../core/cursor.ts";
import { StoreFailed } from "../errors.ts";
import type { KhalaEvent } from "../events.ts";
import { IndexedDbStore } from "./indexeddb.ts";
import { MemoryStore } from "./memory.ts";
import type { Store } from "./store.ts";

/** Return the store of a namespace; it opens at the first use. */
export function openBrowserStore(namespace: string, onDegraded: (reason: string) => void): Store {
  return new DegradingStore(() => IndexedDbStore.open(namespace), onDegraded);
}

export class DegradingStore implements Store {
  private readonly memory = new MemoryStore();
  private opened: Promise<Store> | null = null;
  private hasDegraded = false;
  // Where each topic stands, so that memory can go on from there.
  private readonly known = new Map<string, Cursor>();

  constructor(
    private readonly open: () => Promise<Store>,
    private readonly onDegraded: (reason: string) => void,
  ) {}

  get isPersistent(): boolean {
    return !this.hasDegraded;
  }

  async loadCursor(topic: string): Promise<Cursor | null> {
    const cursor = await this.attempt((store) => store.loadCursor(topic));
    if (cursor !== null) this.known.set(topic, cursor);
    return cursor;
  }

  async begin(cursor: Cursor): Promise<void> {
    await this.attempt((store) => store.begin(cursor));
    this.known.set(cursor.topic, cursor);
  }

  async commit(events: readonly KhalaEvent[], lineage: string): Promise<Cursor> {
    const cursor = await this.attempt((store) => store.commit(events, lineage));
    this.known.set(cursor.topic, cursor);
    return cursor;
  }

  readEvents(topic: string, afterSeq: bigint, limit: number): Promise<readonly KhalaEvent[]> {
    return this.attempt((store) => store.readEvents(topic, afterSeq, limit));
  }

  async forget(topic: string | null): Promise<void> {
    await this.attempt((store) => store.forget(topic));
    if (topic === null) this.known.clear();
    else this.known.delete(topic);
  }

  private async attempt<T>(call: (store: Store) => Promise<T>): Promise<T> {
    if (!this.hasDegraded) {
      try {
        this.opened ??= this.open();
        return await call(await this.opened);
      } catch (error) {
        if (!(error instanceof StoreFailed)) throw error;
        await this.degrade(error.message);
      }
    }
    return call(this.memory);
  }

  private async degrade(reason: string): Promise<void> {
    if (this.hasDegraded) return;
    this.hasDegraded = true;
    // All at once: another topic's commit may come while this one waits.
    await Promise.all([...this.known.values()].map((cursor) => this.memory.begin(cursor)));
    this.onDegraded(reason);
  }
}
