/** What a loop is given, what is kept of it, and where the next one goes on. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ChainMismatch, StaleCursor, StoreConflict, Unavailable } from "../src/errors.ts";
import type { KhalaEvent } from "../src/events.ts";
import type * as m from "../src/gen/messages.ts";
import { HistoryPages } from "../src/history.ts";
import { MemoryStore } from "../src/store/memory.ts";
import { COMMIT_EVENTS_MAX } from "../src/subscription.ts";
import { verifyEvents } from "../src/verify.ts";
import { clientOf, Follower } from "./following.ts";
import { LINEAGE, LogModel, topicNumber } from "./node_model.ts";
import { World } from "./world.ts";

const TOPIC = topicNumber(1);

function logOf(count: number): LogModel {
  const log = new LogModel(TOPIC);
  log.append(count);
  return log;
}

/** A store that counts its commits. */
class CountingStore extends MemoryStore {
  readonly sizes: number[] = [];

  override async commit(...args: Parameters<MemoryStore["commit"]>): ReturnType<MemoryStore["commit"]> {
    this.sizes.push(args[0].length);
    return super.commit(...args);
  }
}

describe("what is kept", () => {
  test("processed events are committed before the loop waits, and at least every 256", async () => {
    const log = logOf(600);
    const store = new CountingStore();
    const world = new World(log);
    const follower = new Follower(clientOf(world, { store }), TOPIC);
    await world.advance(0);
    follower.assertFollows(log);
    assert.deepEqual((await store.loadCursor(TOPIC))?.seq, 600n);
    assert.ok(store.sizes.every((size) => size <= COMMIT_EVENTS_MAX));
    assert.equal(
      store.sizes.reduce((sum, size) => sum + size),
      600,
    );
  });

  test("a loop that never waits is committed every 256 events, too", async () => {
    const world = new World(logOf(600));
    const store = new MemoryStore();
    const subscription = clientOf(world, { store }).subscribe(TOPIC);
    const first = subscription.next();
    await world.advance(0);
    await first;
    for (let seq = 2; seq <= 300; seq += 1) await subscription.next();
    assert.equal((await store.loadCursor(TOPIC))?.seq, BigInt(COMMIT_EVENTS_MAX));
  });

  test("the event given last counts when the next is asked for, not when the loop is left", async () => {
    const log = logOf(5);
    const world = new World(log);
    const store = new MemoryStore();
    const given: KhalaEvent[] = [];
    const loop = (async () => {
      for await (const event of clientOf(world, { store }).subscribe(TOPIC)) {
        given.push(event);
        if (event.seq === 3n) break;
      }
    })();
    await world.advance(0);
    await loop;
    assert.equal(given.length, 3);
    assert.equal((await store.loadCursor(TOPIC))?.seq, 2n);
    const next = new Follower(clientOf(world, { store }), TOPIC);
    await world.advance(0);
    assert.deepEqual(next.seqs, [3, 4, 5]);
  });

  test("an exception in the loop keeps what was processed before", async () => {
    const world = new World(logOf(5));
    const store = new MemoryStore();
    const loop = (async () => {
      for await (const event of clientOf(world, { store }).subscribe(TOPIC)) {
        if (event.seq === 4n) throw new Error("the page's own");
      }
    })();
    const failed = assert.rejects(loop, /the page's own/);
    await world.advance(0);
    await failed;
    assert.equal((await store.loadCursor(TOPIC))?.seq, 3n);
  });

  test("withSaved: first what was kept, then what follows, each once", async () => {
    const log = logOf(700);
    const world = new World(log);
    const store = new MemoryStore();
    const before = clientOf(world, { store });
    new Follower(before, TOPIC);
    await world.advance(0);
    await before.close();
    log.append(5);
    const after = new Follower(clientOf(world, { store }), TOPIC, { withSaved: true });
    await world.advance(0);
    after.assertFollows(log);
    assert.equal(world.socket.node.said[1]!.subscribe!.topics[0]!.cursor!.seq, 700n);
    assert.equal(after.subscription.counts.applied, 5n);
  });

  test("orElse says where to begin if nothing is kept, and what is kept wins", async () => {
    const log = logOf(9);
    log.floorSeq = 4n;
    const world = new World(log);
    const store = new MemoryStore();
    const khala = clientOf(world, { store });
    const first = new Follower(khala, TOPIC, { orElse: "earliest", withSaved: true });
    await world.advance(0);
    assert.deepEqual(first.seqs, [4, 5, 6, 7, 8, 9]);
    await first.subscription.close();
    log.append(1);
    const second = new Follower(khala, TOPIC, { orElse: "now", withSaved: true });
    await world.advance(0);
    assert.deepEqual(second.seqs, [4, 5, 6, 7, 8, 9, 10]);
  });

  test("a follower without `saved` keeps nothing in the client's store", async () => {
    const world = new World(logOf(5));
    const store = new MemoryStore();
    const follower = new Follower(clientOf(world, { store }), TOPIC, { after: "beginning" });
    await world.advance(0);
    assert.equal(follower.events.length, 5);
    assert.equal(await store.loadCursor(TOPIC), null);
  });

  test("two clients with one store: both see everything, rows are kept once", async () => {
    const log = logOf(40);
    const world = new World(log);
    const store = new CountingStore();
    const followers = [0, 1].map(() => new Follower(clientOf(world, { store }), TOPIC));
    await world.advance(0);
    for (const socket of world.sockets) for (const text of socket.node.publish()) world.deliver(socket, text);
    await world.advance(0);
    for (const follower of followers) follower.assertFollows(log);
    assert.equal((await store.readEvents(TOPIC, 0n, 1_000)).length, 40);
  });

  test("a topic that was forgotten under a follower ends it", async () => {
    const log = logOf(2);
    const world = new World(log);
    const store = new MemoryStore();
    const follower = new Follower(clientOf(world, { store }), TOPIC);
    await world.advance(0);
    await store.forget(TOPIC);
    log.append(1);
    await world.publish();
    assert.ok(follower.error instanceof StoreConflict);
    assert.equal(follower.subscription.status.state, "ended");
  });

  test("a store that stands in another lineage is stale, and may be forgotten", async () => {
    const log = logOf(3);
    const world = new World(log);
    const store = new MemoryStore();
    const khala = clientOf(world, { store });
    const first = new Follower(khala, TOPIC);
    await world.advance(0);
    await first.subscription.close();
    log.lineage = "lin_restored";
    const second = new Follower(khala, TOPIC);
    await world.advance(0);
    assert.ok(second.error instanceof StaleCursor && second.error.reason === "lineage_mismatch");
    await khala.forget(TOPIC);
    const third = new Follower(khala, TOPIC);
    await world.advance(0);
    third.assertFollows(log);
  });
});

function pageOf(log: LogModel, afterSeq: bigint, size: number): m.ListEventsResponse {
  const frames = log.frames.slice(Number(afterSeq), Number(afterSeq) + size);
  const through = frames.at(-1)?.seq ?? afterSeq;
  return {
    events: frames.map((frame) => ({
      event_id: "evt",
      topic: frame.topic,
      seq: frame.seq,
      kind: frame.kind,
      payload_bytes: frame.payload,
      schema_version: frame.schemaVersion,
      committed_at_us: 0n,
      request_id: "",
      actor: "",
    })),
    watermark: { topic: log.topic, seq: through, lineage: log.lineage, chain: log.chainAt(through) },
    head_seq: log.headSeq,
    floor_seq: log.floorSeq,
    chain_before: log.chainAt(afterSeq),
  };
}

describe("history by pages", () => {
  const start = (log: LogModel) => ({ topic: TOPIC, seq: 0n, lineage: LINEAGE, chain: log.chainAt(0n) });

  test("beyond what is replayed, history comes first and the stream follows it", async () => {
    const log = logOf(50);
    log.floorSeq = 40n;
    const world = new World(log);
    const khala = clientOf(world, { getBearer: () => "bearer" });
    khala.http!.readEvents = async (_run, afterSeq) => pageOf(log, afterSeq, 20);
    const follower = new Follower(khala, TOPIC, { historyByPages: true });
    await world.advance(0);
    follower.assertFollows(log);
    assert.equal(follower.count("history_read"), 3);
    log.append(1);
    await world.publish();
    follower.assertFollows(log);
    assert.equal(follower.subscription.status.state, "live");
  });

  test("without pages, stale is thrown", async () => {
    const log = logOf(50);
    log.floorSeq = 40n;
    const world = new World(log);
    const follower = new Follower(clientOf(world), TOPIC);
    await world.advance(0);
    assert.ok(follower.error instanceof StaleCursor && follower.error.reason === "retention_expired");
  });

  const forgeries: [string, (page: m.ListEventsResponse) => m.ListEventsResponse, bigint][] = [
    ["does not continue our chain", (page) => ({ ...page, chain_before: new Uint8Array(32) }), 0n],
    ["has a hole", (page) => ({ ...page, events: page.events.filter((_, index) => index !== 4) }), 6n],
    ["repeats", (page) => ({ ...page, events: [page.events[0]!, ...page.events] }), 1n],
    [
      "was changed",
      (page) => ({
        ...page,
        events: page.events.map((event, index) => (index === 7 ? { ...event, kind: "x" } : event)),
      }),
      20n,
    ],
    [
      "is of another topic",
      (page) => ({ ...page, events: page.events.map((event) => ({ ...event, topic: topicNumber(2) })) }),
      1n,
    ],
  ];
  for (const [what, forge, seq] of forgeries) {
    test(`a page that ${what} is refused`, async () => {
      const log = logOf(20);
      const pages = new HistoryPages(async (afterSeq) => forge(pageOf(log, afterSeq, 20)), new World(log));
      await assert.rejects(pages.readAfter(start(log)), (error) => error instanceof ChainMismatch && error.seq === seq);
    });
  }

  test("another lineage is stale", async () => {
    const log = logOf(20);
    const pages = new HistoryPages(async (afterSeq) => pageOf(log, afterSeq, 20), new World(log));
    const position = { topic: TOPIC, seq: 5n, lineage: "lin_other", chain: log.chainAt(5n) };
    await assert.rejects(pages.readAfter(position), StaleCursor);
  });

  test("trouble is tried again for two minutes, then thrown", async () => {
    const world = new World(logOf(20));
    let calls = 0;
    const read = async (): Promise<never> => {
      calls += 1;
      throw new Unavailable();
    };
    const reading = assert.rejects(new HistoryPages(read, world).readAfter(start(logOf(1))), Unavailable);
    await world.advance(130_000);
    await reading;
    assert.ok(calls > 8 && calls < 30, String(calls));
  });
});

describe("verifyEvents", () => {
  async function eventsOf(count: number): Promise<readonly KhalaEvent[]> {
    const world = new World(logOf(count));
    const follower = new Follower(clientOf(world), TOPIC);
    await world.advance(0);
    return follower.events;
  }

  test("a whole history, and a part of it", async () => {
    const events = await eventsOf(20);
    const whole = await verifyEvents(TOPIC, events, null, events[19]!.chain);
    assert.ok(whole.isVerified);
    assert.deepEqual([whole.seq, whole.events, whole.erased], [20n, 20, 0]);
    const known = { seq: 4n, chain: events[3]!.chain };
    assert.equal((await verifyEvents(TOPIC, events.slice(4), known)).isVerified, true);
  });

  test("loss, change, order and another end are found", async () => {
    const events = await eventsOf(6);
    const cases: [readonly KhalaEvent[], Uint8Array<ArrayBuffer> | null, bigint][] = [
      [events.filter((event) => event.seq !== 3n), null, 4n],
      [[events[1]!, events[0]!], null, 2n],
      [
        events.map((event) => (event.seq === 2n ? Object.assign(Object.create(event), { kind: "x" }) : event)),
        null,
        2n,
      ],
      [events, new Uint8Array(32), 6n],
    ];
    for (const [kept, expected, seq] of cases) {
      const found = await verifyEvents(TOPIC, kept, null, expected);
      assert.deepEqual([found.isVerified, found.seq], [false, seq]);
    }
  });
});
