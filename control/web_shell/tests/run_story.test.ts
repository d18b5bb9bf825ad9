// What is said of a run: loss is counted by seqs, live is what was taken, an outage ends when everything is there.

import assert from "node:assert/strict";
import { test } from "node:test";

import { KhalaEvent } from "../../../khala/client/typescript/src/events.ts";
import { KEPT_MAX, lookAt } from "../src/recent_runs.ts";
import { RunList, summaryOf } from "../src/runs.ts";
import { RunStory } from "../src/run_story.ts";

const TOPIC = "run:run_1:events";
const NOTHING = new Uint8Array();

function take(story: RunStory, from: number, to: number, nowMs = 0): void {
  for (let seq = from; seq <= to; seq += 1) {
    story.apply(new KhalaEvent(TOPIC, BigInt(seq), "thought", NOTHING, 1, NOTHING), nowMs);
  }
}

function live(story: RunStory, seq: number, nowMs = 0): void {
  story.note({ type: "live", topic: TOPIC, seq: BigInt(seq), chain: NOTHING }, nowMs);
}

function down(story: RunStory, nowMs: number): void {
  story.note({ type: "disconnected", code: "unavailable", retryInMs: 500 }, nowMs);
}

function replaying(story: RunStory, headSeq: number): void {
  const cursor = { topic: TOPIC, seq: 0n, lineage: "lin_1", chain: null };
  story.note({ type: "replaying", topic: TOPIC, cursor, headSeq: BigInt(headSeq) }, 0);
}

test("the news of being live may come before the events do", () => {
  const story = new RunStory("run_1");
  replaying(story, 3);
  live(story, 3);
  assert.equal(story.phase, "replaying");
  take(story, 1, 3);
  assert.equal(story.phase, "live");
  assert.equal(story.verifiedSeq, 3);
});

test("an outage: how long, how many, none lost", () => {
  const story = new RunStory("run_1");
  take(story, 1, 10);
  live(story, 10);
  down(story, 1_000);
  down(story, 3_000);
  assert.deepEqual([story.phase, story.retryAtMs, story.offlineCode], ["offline", 3_500, "unavailable"]);
  story.note({ type: "connecting" }, 4_000);
  assert.deepEqual([story.phase, story.retryAtMs], ["offline", 4_000]);
  story.note({ type: "connected", connectionId: "", nodeId: "" }, 4_000);
  assert.equal(story.phase, "opening");
  replaying(story, 17);
  take(story, 11, 17, 4_500);
  assert.equal(story.outage, null);
  live(story, 17, 5_000);
  assert.deepEqual(story.outage, { seconds: 4, received: 7, lost: 0, verifiedSeq: 17 });
});

test("a hole is lost, whatever anybody says", () => {
  const story = new RunStory("run_1");
  take(story, 1, 5);
  live(story, 5);
  down(story, 0);
  take(story, 8, 9);
  live(story, 9, 1_000);
  assert.deepEqual(story.outage, { seconds: 1, received: 2, lost: 2, verifiedSeq: 9 });
});

test("what is there already is not taken again", () => {
  const story = new RunStory("run_1");
  take(story, 1, 4);
  take(story, 2, 5);
  assert.deepEqual(
    story.events.map((event) => event.seq),
    [1, 2, 3, 4, 5],
  );
});

test("a run whose beginning is no longer retained begins where it does, and nothing counts as lost", () => {
  const story = new RunStory("run_1");
  take(story, 101, 103);
  down(story, 0);
  live(story, 103, 1_000);
  assert.equal(story.outage?.lost, 0);
  assert.deepEqual(
    story.timelineAt(102).items.map((item) => item.first),
    [101, 102],
  );
});

test("a moment of the past equals folding up to it, forwards and from anew", () => {
  const story = new RunStory("run_1");
  take(story, 1, 50);
  const past = story.timelineAt(20);
  assert.equal(past.lastSeq, 20);
  story.extendTo(past, 35);
  assert.deepEqual(past.items, story.timelineAt(35).items);
  assert.equal(story.timelineAt(0).items.length, 0);
});

test("the list of runs keeps the newer word on each", () => {
  const runs = new RunList();
  assert.equal(runs.put({ id: "run_a", name: "a", state: "running", headSeq: 5 }), true);
  assert.equal(runs.put({ id: "run_a", name: "a", state: "running", headSeq: 5 }), false);
  assert.equal(runs.put({ id: "run_a", name: "a", state: "created", headSeq: 1 }), false);
  assert.equal(runs.put({ id: "run_b", name: "", state: "failed", headSeq: 2 }), true);
  assert.equal(runs.put({ id: "run_a", name: "", state: "failed", headSeq: 6 }), true);
  assert.deepEqual(
    runs.sorted().map((run) => [run.id, run.name, run.state]),
    [
      ["run_b", "", "failed"],
      ["run_a", "a", "failed"],
    ],
  );
});

test("storage keeps the runs that were looked at last", () => {
  const ids = Array.from({ length: KEPT_MAX }, (_, index) => `run_${index}`);
  assert.deepEqual(lookAt(ids, "run_3").dropped, []);
  assert.equal(lookAt(ids, "run_3").kept[0], "run_3");
  assert.deepEqual(lookAt(ids, "run_new").dropped, [`run_${KEPT_MAX - 1}`]);
  assert.equal(new Set(lookAt(ids, "run_new").kept).size, KEPT_MAX);
});

test("a summary of the wire", () => {
  const data = { run_id: "run_a", name: "a", state: "RUN_STATE_RUNNING", head_seq: "12" };
  assert.deepEqual(summaryOf(data), { id: "run_a", name: "a", state: "running", headSeq: 12 });
  assert.equal(summaryOf({}), null);
});
