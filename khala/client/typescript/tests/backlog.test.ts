/** Frames that wait for their hashes: one piece of work at a time, and only its own result counts. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Backlog, SEAL_BATCH } from "../src/core/backlog.ts";
import type { SealDue } from "../src/core/happenings.ts";
import { linkOf } from "../src/core/links.ts";
import { LogModel, sealNow, topicNumber } from "./node_model.ts";

function backlogOf(count: number): [Backlog, LogModel] {
  const log = new LogModel(topicNumber(1));
  log.append(count);
  const backlog = new Backlog(log.topic, 0n, log.chainAt(0n));
  for (const frame of log.frames) backlog.put(frame, linkOf(frame));
  return [backlog, log];
}

function workOf(backlog: Backlog): SealDue {
  const [work] = backlog.takeWork();
  assert.ok(work?.type === "seal_due");
  return work;
}

test("one piece of work is out at a time, and it is bounded", () => {
  const [backlog, log] = backlogOf(SEAL_BATCH + 10);
  const first = workOf(backlog);
  assert.equal(first.links.length, SEAL_BATCH);
  assert.deepEqual(backlog.takeWork(), []);
  backlog.settle(first.ticket, sealNow(first.chain, first.links));
  assert.equal(backlog.seq, BigInt(SEAL_BATCH));
  const second = workOf(backlog);
  backlog.settle(second.ticket, sealNow(second.chain, second.links));
  assert.deepEqual([backlog.seq, backlog.chain, backlog.isEmpty], [log.headSeq, log.chainAt(log.headSeq), true]);
});

test("a result that nobody waits for changes nothing", () => {
  const [backlog, log] = backlogOf(3);
  const dropped = workOf(backlog);
  const result = sealNow(dropped.chain, dropped.links);
  backlog.drop();
  assert.equal(backlog.settle(dropped.ticket, result), null);
  for (const frame of log.frames) backlog.put({ ...frame, kind: "action" }, linkOf({ ...frame, kind: "action" }));
  workOf(backlog);
  // Race: the topic was left and followed again while the hashes of before were on the way.
  assert.equal(backlog.settle(dropped.ticket, result), null);
  assert.deepEqual([backlog.seq, backlog.chain], [0n, log.chainAt(0n)]);
});
