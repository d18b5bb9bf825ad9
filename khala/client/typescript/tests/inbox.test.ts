/** What waits for a follower that takes nothing. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Inbox, type InboxItem } from "../src/inbox.ts";
import { topicNumber } from "./node_model.ts";

function startedAt(seq: bigint): InboxItem {
  return { type: "started", cursor: { topic: topicNumber(1), seq, lineage: "lin_1", chain: null } };
}

test("reconnects alone do not fill it", () => {
  const inbox = new Inbox(assert.fail, assert.fail);
  for (let seq = 0n; seq < 1_000n; seq += 1n) inbox.put(startedAt(seq));
  assert.deepEqual(inbox.take(), startedAt(999n));
  assert.equal(inbox.take(), null);
});
