import assert from "node:assert/strict";
import { test } from "node:test";

import { RunList, summaryOf } from "../src/runs.ts";

const said = (headSeq: number, withdrawn: boolean): Record<string, unknown> => ({
  run_id: "run_1",
  name: "mend",
  state: "running",
  head_seq: String(headSeq),
  withdrawn,
});

test("a run that another owner has leaves the list, and what is older brings it not back", () => {
  const runs = new RunList();
  runs.put(summaryOf(said(3, false))!);
  assert.equal(runs.size, 1);
  assert.equal(runs.put(summaryOf(said(4, true))!), true);
  assert.deepEqual([runs.size, runs.find("run_1"), runs.sorted()], [0, undefined, []]);
  assert.equal(runs.put(summaryOf(said(3, false))!), false);
  assert.equal(runs.size, 0);
});

test("a run that comes back to its owner is shown again", () => {
  const runs = new RunList();
  runs.put(summaryOf(said(4, true))!);
  assert.equal(runs.put(summaryOf(said(5, false))!), true);
  assert.equal(runs.find("run_1")?.name, "mend");
});
