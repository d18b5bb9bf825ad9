/** Both stores obey one suite; and what only IndexedDB can do: tabs, quota, private mode. */

import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";
import { IDBFactory, IDBKeyRange, IDBObjectStore } from "fake-indexeddb";
import type { Cursor } from "../src/core/cursor.ts";
import { StoreConflict, StoreFailed } from "../src/errors.ts";
import { KhalaEvent } from "../src/events.ts";
import { DegradingStore } from "../src/store/browser.ts";
import { IndexedDbStore } from "../src/store/indexeddb.ts";
import { MemoryStore } from "../src/store/memory.ts";
import type { Store } from "../src/store/store.ts";
import { LINEAGE, LogModel, topicNumber } from "./node_model.ts";

globalThis.IDBKeyRange = IDBKeyRange;
const TOPIC = topicNumber(1);
const OTHER = topicNumber(2);
const log = new LogModel(TOPIC);
log.append(30);

function events(from: number, through: number): KhalaEvent[] {
  return log.frames.slice(from - 1, through).map((frame) => KhalaEvent.of({ frame, chain: log.chainAt(frame.seq) }));
}

function cursorAt(seq: number, lineage = LINEAGE, topic = TOPIC): Cursor {
  return { topic, seq: BigInt(seq), lineage, chain: log.chainAt(BigInt(seq)) };
}

async function keptSeqs(store: Store, topic = TOPIC): Promise<number[]> {
  return (await store.readEvents(topic, 0n, 1_000)).map((event) => Number(event.seq));
}

let factory = new IDBFactory();
beforeEach(() => (factory = new IDBFactory()));

const OPENERS: [string, () => Promise<Store>][] = [
  ["MemoryStore", async () => new MemoryStore()],
  ["IndexedDbStore", () => IndexedDbStore.open("usr_1", factory)],
  [
    "DegradingStore on IndexedDB",
    async () =>
      new DegradingStore(
        () => IndexedDbStore.open("usr_1", factory),
        () => {},
      ),
  ],
  [
    "DegradingStore on memory",
    async () =>
      new DegradingStore(
        () => Promise.reject(new StoreFailed("private mode")),
        () => {},
      ),
  ],
];

for (const [name, open] of OPENERS) {
  describe(name, () => {
    test("nothing is stored at first", async () => {
      const store = await open();
      assert.equal(await store.loadCursor(TOPIC), null);
      assert.deepEqual(await keptSeqs(store), []);
    });

    test("a commit keeps events and cursor", async () => {
      const store = await open();
      await store.begin(cursorAt(0));
      assert.deepEqual(await store.commit(events(1, 3), LINEAGE), cursorAt(3));
      await store.commit(events(4, 12), LINEAGE);
      assert.deepEqual(await store.loadCursor(TOPIC), cursorAt(12));
      const kept = await store.readEvents(TOPIC, 2n, 9);
      assert.deepEqual(
        kept.map((event) => Number(event.seq)),
        [3, 4, 5, 6, 7, 8, 9, 10, 11],
      );
      assert.deepEqual(kept, events(3, 11));
    });

    test("what another follower committed meanwhile is skipped; the cursor never goes back", async () => {
      const store = await open();
      await store.begin(cursorAt(0));
      await store.commit(events(1, 8), LINEAGE);
      assert.deepEqual(await store.commit(events(1, 5), LINEAGE), cursorAt(8));
      assert.deepEqual(await store.commit(events(6, 10), LINEAGE), cursorAt(10));
      assert.deepEqual(await keptSeqs(store), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    });

    test("a second beginning leaves what is there", async () => {
      const store = await open();
      await store.begin(cursorAt(0));
      await store.commit(events(1, 4), LINEAGE);
      await store.begin(cursorAt(0));
      assert.deepEqual(await store.loadCursor(TOPIC), cursorAt(4));
      assert.deepEqual(await keptSeqs(store), [1, 2, 3, 4]);
    });

    const refused: [string, (store: Store) => Promise<unknown>][] = [
      ["a hole", (store) => store.commit(events(6, 7), LINEAGE)],
      ["a hole inside", (store) => store.commit([...events(5, 5), ...events(7, 7)], LINEAGE)],
      ["another lineage", (store) => store.commit(events(5, 6), "lin_other")],
      ["a beginning of another lineage", (store) => store.begin(cursorAt(0, "lin_other"))],
      ["a beginning beyond what is there", (store) => store.begin(cursorAt(9))],
      [
        "another chain at the stored seq",
        (store) => {
          const [event, ...rest] = events(4, 6);
          const { topic, seq, kind, payload } = event!;
          return store.commit([new KhalaEvent(topic, seq, kind, payload, 1, new Uint8Array(32)), ...rest], LINEAGE);
        },
      ],
    ];
    for (const [what, attempt] of refused) {
      test(`${what} is a conflict and changes nothing`, async () => {
        const store = await open();
        await store.begin(cursorAt(0));
        await store.commit(events(1, 4), LINEAGE);
        await assert.rejects(attempt(store), StoreConflict);
        assert.deepEqual(await store.loadCursor(TOPIC), cursorAt(4));
        assert.deepEqual(await keptSeqs(store), [1, 2, 3, 4]);
      });
    }

    test("forgotten topics are gone, and their followers hear of it", async () => {
      const store = await open();
      await store.begin(cursorAt(0));
      await store.commit(events(1, 4), LINEAGE);
      await store.begin(cursorAt(0, LINEAGE, OTHER));
      await store.forget(TOPIC);
      assert.deepEqual([await store.loadCursor(TOPIC), await keptSeqs(store)], [null, []]);
      assert.notEqual(await store.loadCursor(OTHER), null);
      await assert.rejects(store.commit(events(5, 6), LINEAGE), StoreConflict);
      await store.forget(null);
      assert.equal(await store.loadCursor(OTHER), null);
    });

    test("seqs beyond 2^53 keep their order", async () => {
      const store = await open();
      const seq = 2n ** 63n - 3n;
      const chain = new Uint8Array(32);
      const big = [seq + 1n, seq + 2n].map((at) => new KhalaEvent(TOPIC, at, "thought", new Uint8Array(), 1, chain));
      await store.begin({ topic: TOPIC, seq, lineage: LINEAGE, chain });
      await store.commit(big, LINEAGE);
      assert.deepEqual((await store.loadCursor(TOPIC))?.seq, 2n ** 63n - 1n);
      assert.deepEqual(
        (await store.readEvents(TOPIC, seq + 1n, 9)).map((event) => event.seq),
        [seq + 2n],
      );
    });
  });
}

describe("IndexedDbStore", () => {
  test("is there again after a reload", async () => {
    const before = await IndexedDbStore.open("usr_1", factory);
    await before.begin(cursorAt(0));
    await before.commit(events(1, 4), LINEAGE);
    before.close();
    const after = await IndexedDbStore.open("usr_1", factory);
    assert.deepEqual(await after.loadCursor(TOPIC), cursorAt(4));
    assert.deepEqual(await after.readEvents(TOPIC, 0n, 9), events(1, 4));
  });

  test("namespaces do not see each other", async () => {
    const [mine, theirs] = [await IndexedDbStore.open("usr_1", factory), await IndexedDbStore.open("usr_2", factory)];
    await mine.begin(cursorAt(0));
    await mine.commit(events(1, 4), LINEAGE);
    assert.deepEqual([await theirs.loadCursor(TOPIC), await keptSeqs(theirs)], [null, []]);
    await theirs.begin(cursorAt(0));
    await theirs.begin(cursorAt(0, LINEAGE, OTHER));
    await theirs.forget(TOPIC);
    await theirs.forget(null);
    assert.deepEqual(await keptSeqs(mine), [1, 2, 3, 4]);
  });

  test("two tabs that commit at once: every row once, the cursor at the end", async () => {
    const tabs = [await IndexedDbStore.open("usr_1", factory), await IndexedDbStore.open("usr_1", factory)];
    await Promise.all(tabs.map((tab) => tab.begin(cursorAt(0))));
    const positions: bigint[] = [];
    const follow = async (tab: Store, size: number): Promise<void> => {
      for (let from = 1; from <= 30; from += size) {
        await tab.commit(events(from, Math.min(from + size - 1, 30)), LINEAGE);
        positions.push((await tab.loadCursor(TOPIC))!.seq);
      }
    };
    await Promise.all([follow(tabs[0]!, 3), follow(tabs[1]!, 7)]);
    assert.deepEqual(
      await keptSeqs(tabs[0]!),
      log.frames.map((frame) => Number(frame.seq)),
    );
    assert.deepEqual(
      positions,
      [...positions].sort((one, other) => Number(one - other)),
    );
    assert.equal(positions.at(-1), 30n);
  });

  test("a commit that fails in the middle leaves neither rows nor cursor", async (context) => {
    const store = await IndexedDbStore.open("usr_1", factory);
    await store.begin(cursorAt(0));
    await store.commit(events(1, 2), LINEAGE);
    const put = IDBObjectStore.prototype.put;
    // The cursor is written last: rows are in the transaction when the quota is met.
    context.mock.method(IDBObjectStore.prototype, "put", function (this: IDBObjectStore, ...values: unknown[]) {
      if (this.name !== "cursors") return put.apply(this, values as never);
      throw new DOMException("no room", "QuotaExceededError");
    });
    await assert.rejects(store.commit(events(3, 6), LINEAGE), StoreFailed);
    context.mock.restoreAll();
    assert.deepEqual(await store.loadCursor(TOPIC), cursorAt(2));
    assert.deepEqual(await keptSeqs(store), [1, 2]);
  });

  test("a database that refuses to open is StoreFailed", async () => {
    await assert.rejects(IndexedDbStore.open("usr_1", undefined), StoreFailed);
    const refusing = {
      open: () => {
        throw new DOMException("private", "SecurityError");
      },
    } as unknown as IDBFactory;
    await assert.rejects(IndexedDbStore.open("usr_1", refusing), StoreFailed);
  });
});

describe("DegradingStore", () => {
  test("quota: goes on in memory from where the disk stands, and says so once", async (context) => {
    const told: string[] = [];
    const store = new DegradingStore(
      () => IndexedDbStore.open("usr_1", factory),
      (reason) => told.push(reason),
    );
    await store.begin(cursorAt(0));
    await store.commit(events(1, 2), LINEAGE);
    assert.equal(store.isPersistent, true);
    context.mock.method(IDBObjectStore.prototype, "add", () => {
      throw new DOMException("no room", "QuotaExceededError");
    });
    assert.deepEqual(await store.commit(events(3, 4), LINEAGE), cursorAt(4));
    context.mock.restoreAll();
    await store.commit(events(5, 6), LINEAGE);
    assert.deepEqual([store.isPersistent, told.length], [false, 1]);
    assert.match(told[0]!, /QuotaExceededError/);
    assert.deepEqual(await store.loadCursor(TOPIC), cursorAt(6));
    const disk = await IndexedDbStore.open("usr_1", factory);
    assert.deepEqual(await disk.loadCursor(TOPIC), cursorAt(2));
  });

  test("a conflict is no reason to degrade", async () => {
    const store = new DegradingStore(
      () => IndexedDbStore.open("usr_1", factory),
      () => assert.fail("degraded"),
    );
    await store.begin(cursorAt(0));
    await assert.rejects(store.commit(events(3, 4), LINEAGE), StoreConflict);
  });
});
