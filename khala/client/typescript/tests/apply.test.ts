/** apply-rule.json: what every client does with each frame of one topic. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { sealLinks } from "../src/chain.ts";
import { ApplyRule } from "../src/core/apply.ts";
import { linkOf } from "../src/core/links.ts";
import { frameOf, fromHex, hex, load } from "./fixtures.ts";

interface Scenario {
  name: string;
  topic: string;
  start: { seq: string; chain: string };
  steps: {
    frame: Parameters<typeof frameOf>[0];
    expect: string;
    then: { seq: string; chain: string };
    resume_after?: string;
  }[];
  counts: Record<"applied" | "duplicates" | "gaps", string>;
}

describe("apply-rule.json", () => {
  for (const scenario of load<{ scenarios: Scenario[] }>("apply-rule.json").scenarios) {
    test(scenario.name, async () => {
      const rule = new ApplyRule(scenario.topic, BigInt(scenario.start.seq));
      let chain = fromHex(scenario.start.chain);
      for (const step of scenario.steps) {
        const frame = frameOf(step.frame);
        const judged = rule.offer(frame);
        assert.equal(judged, step.expect);
        if (judged === "applied") chain = (await sealLinks(chain, [linkOf(frame)]))[0]!;
        assert.deepEqual([rule.seq.toString(), hex(chain)], [step.then.seq, step.then.chain]);
        if (judged === "gap") assert.equal(rule.seq.toString(), step.resume_after);
      }
      const counts = Object.fromEntries(Object.entries(rule.counts).map(([name, count]) => [name, String(count)]));
      assert.deepEqual(counts, scenario.counts);
    });
  }
  test("a frame of another topic changes nothing", () => {
    const rule = new ApplyRule("a", 0n);
    const frame = { topic: "b", seq: 1n, kind: "thought", payload: new Uint8Array(), schemaVersion: 1 };
    assert.throws(() => rule.offer(frame), RangeError);
    assert.deepEqual([rule.seq, rule.counts], [0n, { applied: 0n, duplicates: 0n, gaps: 0n }]);
  });
});
