// The fold of events into rows: what belongs together, and nothing twice.

import assert from "node:assert/strict";
import { test } from "node:test";

import { type RunEvent, Timeline } from "../src/timeline.ts";

let last = 0;

function event(kind: string, data: Record<string, unknown> = {}, seq = last + 1): RunEvent {
  last = seq;
  return { seq, kind, data };
}

function fold(...events: readonly RunEvent[]): Timeline {
  const timeline = new Timeline();
  for (const each of events) timeline.apply(each);
  return timeline;
}

function begin(): void {
  last = 0;
}

test("deltas of a message become the message, where its first one stood", () => {
  begin();
  const { items } = fold(
    event("message.delta", { message_id: "m", offset: "0", text: "Hé" }),
    event("thought", { text: "between" }),
    event("message.delta", { message_id: "m", offset: "2", text: "llo" }),
    event("message.done", { message_id: "m", text: "Héllo.", role: "assistant" }),
  );
  assert.deepEqual(
    items.map((item) => [item.type, item.first, item.last, item.size, item.text, item.isOpen]),
    [
      ["message", 1, 4, 3, "Héllo.", false],
      ["thought", 2, 2, 1, "between", false],
    ],
  );
});

test("a delta that repeats text adds only what is new, by code points", () => {
  begin();
  const { items } = fold(
    event("message.delta", { message_id: "m", offset: "0", text: "a😀b" }),
    event("message.delta", { message_id: "m", offset: "1", text: "😀bc" }),
    event("message.delta", { message_id: "m", offset: "0", text: "a" }),
  );
  assert.equal(items[0]?.text, "a😀bc");
  assert.equal(items[0]?.isOpen, true);
});

test("a message without deltas is whole at once, and a late delta changes nothing", () => {
  begin();
  const { items } = fold(
    event("message.done", { message_id: "m", text: "all" }),
    event("message.delta", { message_id: "m", offset: "3", text: "!" }),
  );
  assert.deepEqual(
    items.map((item) => [item.text, item.size]),
    [["all", 2]],
  );
});

test("a call gets its return, an unknown return stands alone, a failure is one", () => {
  begin();
  const { items } = fold(
    event("tool.called", { call_id: "1", tool: "read", args: { path: "x" } }),
    event("tool.called", { call_id: "2", tool: "write" }),
    event("tool.returned", { call_id: "2", error: "no" }),
    event("tool.returned", { call_id: "1", result: { lines: 3 } }),
    event("tool.returned", { call_id: "9", result: "?" }),
  );
  assert.deepEqual(
    items.map((item) => [item.title, item.detail, item.result, item.isFailed, item.isOpen, item.last]),
    [
      ["read", '{"path":"x"}', '{"lines":3}', false, false, 4],
      ["write", "", "no", true, false, 3],
      ["returned", "", "?", false, false, 5],
    ],
  );
});

test("neighbouring output of one stream is one block, up to its bounds", () => {
  begin();
  const out = (text: string, stream = "OUTPUT_STREAM_STDOUT"): RunEvent => event("output", { text, stream });
  const { items } = fold(out("a"), out("b\n"), out("c"), out("e", "OUTPUT_STREAM_STDERR"), out("d"));
  assert.deepEqual(
    items.map((item) => [item.title, item.text, item.size]),
    [
      ["", "a\nb\nc", 3],
      ["stderr", "e", 1],
      ["", "d", 1],
    ],
  );
  begin();
  const many = fold(...Array.from({ length: 130 }, (_, index) => out(`${index}`)));
  assert.deepEqual(
    many.items.map((item) => item.size),
    [60, 60, 10],
  );
  begin();
  const large = fold(out("x".repeat(6_000)), out("y"));
  assert.equal(large.items.length, 2);
});

test("every kind has a row, an unknown one too, and each event is in exactly one", () => {
  begin();
  const kinds = [
    "run.started", "run.state_changed", "step.started", "thought", "action", "observation", "output", "message.delta",
    "message.done", "tool.called", "tool.returned", "error", "artifact", "custom", "khala.erased", "never.heard",
    "run.transferred", "run.finished",
  ]; // prettier-ignore
  const { items } = fold(...kinds.map((kind) => event(kind)));
  assert.equal(
    items.reduce((sum, item) => sum + item.size, 0),
    kinds.length,
  );
  assert.equal(new Set(items.map((item) => item.first)).size, items.length);
});

test("the state of the run follows its events", () => {
  begin();
  const timeline = fold(event("run.started", { name: "mend" }));
  assert.deepEqual([timeline.name, timeline.state], ["mend", "running"]);
  timeline.apply(event("run.state_changed", { to_state: "RUN_STATE_PAUSED" }));
  assert.equal(timeline.state, "paused");
  timeline.apply(event("run.finished", { state: "RUN_STATE_FAILED", exit_status: 1 }));
  assert.equal(timeline.state, "failed");
  assert.deepEqual(
    timeline.items.map((item) => [item.title, item.text, item.isFailed]),
    [
      ["started", "mend", false],
      ["paused", "", false],
      ["failed", "exit status 1", true],
    ],
  );
});
