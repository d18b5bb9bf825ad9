/**
 * A store in IndexedDB, shared by every tab of the origin.
 *
 * One database; rows are keyed by [namespace, topic, ...], so that the users of one browser profile do not
 * see each other's. Every write reads the cursor first, inside its own read-write transaction: browsers run
 * these one after the other, so nobody moves the cursor between check and update.
 *
 * Keys have no bigint in IndexedDB: seq is a decimal of 19 digits, which sorts as the number does.
 */

import type { Cursor } from "../core/cursor.ts";
import { StoreFailed } from "../errors.ts";
import { KhalaEvent } from "../events.ts";
import type { Bytes } from "../wire/types.ts";
import { cursorAfter, decideBegin, decideCommit, type Store } from "./store.ts";

const DATABASE = "khala";
const VERSION = 1;
const CURSORS = "cursors";
const EVENTS = "events";
const SEQ_DIGITS = 19;
// Arrays sort after every text: [namespace, topic, []] is above all rows of the topic.
const ABOVE: IDBValidKey = [];

interface EventRow {
  readonly seq: bigint;
  readonly kind: string;
  readonly schemaVersion: number;
  readonly payload: Bytes;
  readonly chain: Bytes;
}

export class IndexedDbStore implements Store {
  readonly isPersistent = true;

  private constructor(
    private readonly database: IDBDatabase,
    private readonly namespace: string,
  ) {
    // Another tab has a newer version of this client: give way, or its upgrade waits for ever.
    database.onversionchange = () => database.close();
  }

  /**
   * Open the store of a namespace.
   *
   * @throws StoreFailed - the browser has none, or refuses (private mode, blocked storage).
   */
  static async open(
    namespace: string,
    factory: IDBFactory | undefined = globalThis.indexedDB,
  ): Promise<IndexedDbStore> {
    if (factory === undefined) throw new StoreFailed("this browser has no IndexedDB");
    const database = await new Promise<IDBDatabase>((resolve, reject) => {
      const request = factory.open(DATABASE, VERSION);
      request.onupgradeneeded = () => {
        request.result.createObjectStore(CURSORS);
        request.result.createObjectStore(EVENTS);
      };
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(failure(request.error));
      request.onblocked = () => reject(new StoreFailed("another tab holds an older version open"));
    }).catch((error: unknown) => {
      throw error instanceof StoreFailed ? error : failure(error);
    });
    return new IndexedDbStore(database, namespace);
  }

  /** Close the database; further calls fail. */
  close(): void {
    this.database.close();
  }

  async loadCursor(topic: string): Promise<Cursor | null> {
    return this.transact("readonly", (stores) => this.readCursor(stores.cursors, topic));
  }

  async begin(cursor: Cursor): Promise<void> {
    const { topic } = cursor;
    await this.transact("readwrite", async ({ cursors, events }) => {
      const written = decideBegin(await this.readCursor(cursors, topic), cursor);
      if (written === null) return;
      events.delete(this.rangeOf(topic));
      cursors.put(written, [this.namespace, topic]);
    });
  }

  async commit(committed: readonly KhalaEvent[], lineage: string): Promise<Cursor> {
    const topic = committed[0]!.topic;
    return this.transact("readwrite", async ({ cursors, events }) => {
      const stored = await this.readCursor(cursors, topic);
      const fresh = decideCommit(stored, committed, lineage);
      const last = fresh.at(-1);
      if (last === undefined) return stored!;
      const cursor = cursorAfter(last, lineage);
      for (const { seq, kind, schemaVersion, payload, chain } of fresh) {
        const row: EventRow = { seq, kind, schemaVersion, payload, chain };
        events.add(row, [this.namespace, topic, seqKey(seq)]);
      }
      cursors.put(cursor, [this.namespace, topic]);
      return cursor;
    });
  }

  async readEvents(topic: string, afterSeq: bigint, limit: number): Promise<readonly KhalaEvent[]> {
    const range = IDBKeyRange.bound([this.namespace, topic, seqKey(afterSeq)], [this.namespace, topic, ABOVE], true);
    const rows = await this.transact("readonly", ({ events }) =>
      requested<EventRow[]>(events.getAll(range, limit) as IDBRequest<EventRow[]>),
    );
    return rows.map((row) => new KhalaEvent(topic, row.seq, row.kind, row.payload, row.schemaVersion, row.chain));
  }

  async forget(topic: string | null): Promise<void> {
    await this.transact("readwrite", async ({ cursors, events }) => {
      if (topic === null) {
        const all = IDBKeyRange.bound([this.namespace], [this.namespace, ABOVE]);
        events.delete(all);
        cursors.delete(all);
      } else {
        events.delete(this.rangeOf(topic));
        cursors.delete([this.namespace, topic]);
      }
    });
  }

  private rangeOf(topic: string): IDBKeyRange {
    return IDBKeyRange.bound([this.namespace, topic], [this.namespace, topic, ABOVE]);
  }

  private async readCursor(cursors: IDBObjectStore, topic: string): Promise<Cursor | null> {
    const found = await requested(cursors.get([this.namespace, topic]) as IDBRequest<Cursor | undefined>);
    return found ?? null;
  }

  /** Run `work` in one transaction: all of it is written when the promise resolves, or nothing. */
  private async transact<T>(
    mode: IDBTransactionMode,
    work: (stores: { readonly cursors: IDBObjectStore; readonly events: IDBObjectStore }) => Promise<T>,
  ): Promise<T> {
    let transaction: IDBTransaction;
    try {
      transaction = this.database.transaction([CURSORS, EVENTS], mode);
    } catch (error) {
      throw failure(error); // closed by the browser
    }
    const finished = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(failure(transaction.error));
    });
    finished.catch(() => {}); // reported below, unless the work itself failed first
    let result: T;
    try {
      result = await work({
        cursors: transaction.objectStore(CURSORS),
        events: transaction.objectStore(EVENTS),
      });
    } catch (error) {
      abort(transaction);
      throw error instanceof DOMException ? failure(error) : error;
    }
    await finished;
    return result;
  }
}

function seqKey(seq: bigint): string {
  return seq.toString().padStart(SEQ_DIGITS, "0");
}

function abort(transaction: IDBTransaction): void {
  try {
    transaction.abort();
  } catch {
    // It has aborted itself already.
  }
}

function requested<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(failure(request.error));
  });
}

function failure(error: unknown): StoreFailed {
  return new StoreFailed(error instanceof Error ? `${error.name}: ${error.message}` : "the browser's storage refused");
}
