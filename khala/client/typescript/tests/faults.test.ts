/**
 * Two tabs with one store against a faulty path: frames are lost, repeated, reordered, cut off at any point, and
 * pages are loaded again.
 *
 * The model is the log itself. Safety alone would not find a client that stops applying, so every run ends
 * with faults off and must reach the head (convergence). The name of a failing test is its seed.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Khala } from "../src/khala.ts";
import { MemoryStore } from "../src/store/memory.ts";
import { clientOf, Follower } from "./following.ts";
import { LogModel, topicNumber } from "./node_model.ts";
import { seededRandom, World } from "./world.ts";

const TOPICS = [topicNumber(1), topicNumber(2)];
const RUNS = Number(process.env["KHALA_FAULT_RUNS"] ?? 60);
const STEPS = 60;

/** One tab: what it follows, and everything that it was ever given. */
class Tab {
  private khala: Khala;
  followers: readonly Follower[];
  gaps = 0;
  duplicates = 0n;
  reloads = 0;

  constructor(
    private readonly world: World,
    private readonly store: MemoryStore,
  ) {
    [this.khala, this.followers] = this.load();
  }

  private load(): [Khala, readonly Follower[]] {
    const khala = clientOf(this.world, { store: this.store });
    return [khala, TOPICS.map((topic) => new Follower(khala, topic, { withSaved: true }))];
  }

  /** Load the page again: what was kept comes first. */
  async reload(): Promise<void> {
    this.note();
    this.reloads += 1;
    for (const { subscription } of this.followers) void subscription.close();
    await this.khala.close();
    [this.khala, this.followers] = this.load();
  }

  async close(): Promise<void> {
    this.note();
    await this.khala.close();
  }

  private note(): void {
    for (const follower of this.followers) {
      this.gaps += follower.count("gap_seen");
      this.duplicates += follower.subscription.counts.duplicates;
    }
  }
}

async function runWith(seed: number): Promise<readonly Tab[]> {
  const random = seededRandom(seed);
  const below = (count: number): number => Math.floor(random() * count);
  const logs = TOPICS.map((topic) => new LogModel(topic));
  const world = new World(...logs);
  world.random = random;
  // Each run draws how bad its path is, too: a path that always does everything finds less.
  const [loses, repeats, reorders] = [random() * 0.4, random() * 0.4, random() * 0.3];
  world.path = (texts) => {
    const passed: string[] = [];
    for (const text of texts) {
      const isFrames = text.includes('"frames":[{');
      if (isFrames && random() < loses) continue;
      if (isFrames && random() < reorders) passed.splice(below(passed.length + 1), 0, text);
      else passed.push(text);
      if (isFrames && random() < repeats) passed.push(text);
    }
    return passed;
  };
  const store = new MemoryStore();
  const tabs = [new Tab(world, store), new Tab(world, store)];
  const check = (): void => {
    for (const tab of tabs) tab.followers.forEach((follower, index) => assertPrefix(follower, logs[index]!));
  };

  for (let step = 0; step < STEPS; step += 1) {
    const dice = random();
    const open = world.openSockets;
    if (dice < 0.35) logs[below(2)]!.append(1 + below(8));
    else if (dice < 0.6) await world.publish();
    else if (dice < 0.7) await world.advance(below(20_000));
    else if (dice < 0.8 && open.length > 0) world.end(open[below(open.length)]!, random() < 0.5 ? 1006 : 4000);
    else if (dice < 0.87) world.isReachable = !world.isReachable;
    else if (dice < 0.91) await tabs[below(2)]!.reload();
    else await world.beat();
    check();
  }

  world.path = (texts) => texts;
  world.isReachable = true;
  for (let round = 0; round < 8; round += 1) {
    await world.publish();
    await world.beat();
    await world.advance(31_000);
  }
  for (const tab of tabs) {
    tab.followers.forEach((follower, index) => {
      follower.assertFollows(logs[index]!);
      assert.equal(follower.error, null);
    });
    await tab.close();
  }
  for (const log of logs) {
    assert.equal((await store.loadCursor(log.topic))?.seq ?? 0n, log.headSeq);
    const kept = await store.readEvents(log.topic, 0n, 10_000);
    assert.deepEqual(
      kept.map((event) => event.seq),
      log.frames.map((frame) => frame.seq),
    );
  }
  return tabs;
}

function assertPrefix(follower: Follower, log: LogModel): void {
  follower.seqs.forEach((seq, index) => assert.equal(seq, index + 1));
  for (const event of follower.events) assert.deepEqual(event.chain, log.chainAt(event.seq));
}

describe("a path that does harm", () => {
  const met = { gaps: 0, duplicates: 0n, reloads: 0 };
  for (let seed = 1; seed <= RUNS; seed += 1) {
    test(`seed ${seed} converges to the log`, async () => {
      for (const tab of await runWith(seed)) {
        met.gaps += tab.gaps;
        met.duplicates += tab.duplicates;
        met.reloads += tab.reloads;
      }
    });
  }
  test("the runs have met what they are about", () => {
    assert.ok(met.gaps > RUNS && met.duplicates > BigInt(RUNS) && met.reloads > RUNS, JSON.stringify(met, String));
  });
});
