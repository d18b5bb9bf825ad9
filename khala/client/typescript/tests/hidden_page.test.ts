/** A page that nobody looks at: its timers may fire as rarely as once a minute. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { clientOf, Follower } from "./following.ts";
import { LogModel, topicNumber } from "./node_model.ts";
import { World } from "./world.ts";

const TOPIC = topicNumber(1);
// The node gives up a client of which it has heard nothing for this long.
const DEAD_AFTER_MS = 45_000;

test("what is due is done when a message arrives: heartbeats, and the renewal", async () => {
  const world = new World(new LogModel(TOPIC));
  const saidAtMs = new Map<string, number[]>();
  world.answers = (text) => {
    const name = Object.keys(JSON.parse(text) as object)[0]!;
    saidAtMs.set(name, [...(saidAtMs.get(name) ?? []), world.now]);
    return null;
  };
  new Follower(clientOf(world), TOPIC);
  await world.advance(0);
  const { schedule } = world;
  world.deliver = (socket, text) => void schedule(() => socket.onmessage?.({ data: text } as MessageEvent), 0);
  world.schedule = (callback, delayMs) => schedule(callback, Math.max(delayMs, 60_000));
  const began = world.now;
  for (let minutes = 0; minutes < 4; minutes += 1) {
    for (let beats = 0; beats < 4; beats += 1) {
      await world.advance(15_000);
      await world.beat();
    }
  }
  const heartbeats = [began, ...saidAtMs.get("heartbeat")!];
  const gaps = heartbeats.slice(1).map((atMs, index) => atMs - heartbeats[index]!);
  assert.ok(Math.max(...gaps) < DEAD_AFTER_MS, String(gaps));
  assert.ok(saidAtMs.get("renew")![0]! - began <= 200_000);
  assert.equal(world.sockets.length, 1);
});
