/** Tokens that cannot be had, or come too late: who is told, who goes on, and when it is tried again. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Forbidden, Unavailable } from "../src/errors.ts";
import type { GetToken } from "../src/khala.ts";
import { clientOf, Follower } from "./following.ts";
import { LogModel, topicNumber } from "./node_model.ts";
import { World } from "./world.ts";

const TOPIC = topicNumber(1);
const OTHER = topicNumber(2);
const FORBIDDEN = new Forbidden("forbidden", { topic: OTHER, retryable: false });

function logOf(count: number, topic = TOPIC): LogModel {
  const log = new LogModel(topic);
  log.append(count);
  return log;
}

/** Mints whose answers wait until a test gives them. */
class Mints {
  readonly asked: (readonly string[])[] = [];
  private readonly answers: ((answer: string | Error) => void)[] = [];

  readonly getToken: GetToken = (topics) => {
    this.asked.push(topics);
    return new Promise((resolve, reject) => {
      this.answers.push((answer) => (typeof answer === "string" ? resolve(answer) : reject(answer)));
    });
  };

  /** Answer the oldest that waits, or the newest. */
  async answer(world: World, answer: string | Error, which: "oldest" | "newest" = "oldest"): Promise<void> {
    (which === "oldest" ? this.answers.shift() : this.answers.pop())!(answer);
    await world.advance(0);
  }
}

test("a failed renewal is not asked for by every message", async () => {
  const log = logOf(1);
  const world = new World(log, logOf(1, OTHER));
  const mints = new Mints();
  const khala = clientOf(world, { getToken: mints.getToken });
  const first = new Follower(khala, TOPIC);
  await world.advance(0);
  await mints.answer(world, "token");
  new Follower(khala, OTHER);
  await world.advance(0);
  await mints.answer(world, new Unavailable("no", { retryAfterMs: 5_000 }));
  for (let count = 0; count < 5; count += 1) {
    log.append(1);
    await world.publish();
  }
  first.assertFollows(log);
  assert.equal(mints.asked.length, 2);
  await world.advance(5_000);
  assert.equal(mints.asked.length, 3);
});

test("a live topic that a renewal refuses is left in order; the others get their token at once", async () => {
  const [log, other] = [logOf(1), logOf(1, OTHER)];
  const world = new World(log, other);
  let isForbidden = false;
  const asked: (readonly string[])[] = [];
  const khala = clientOf(world, {
    getToken: (topics) => {
      asked.push(topics);
      if (isForbidden && topics.includes(OTHER)) throw FORBIDDEN;
      return "token";
    },
  });
  const [first, second] = [new Follower(khala, TOPIC), new Follower(khala, OTHER)];
  await world.advance(0);
  second.assertFollows(other);
  isForbidden = true;
  asked.length = 0;
  for (let beats = 0; beats < 19; beats += 1) {
    await world.advance(10_000);
    await world.beat();
  }
  assert.deepEqual(asked, [[TOPIC, OTHER], [TOPIC]]);
  assert.equal(second.error, FORBIDDEN);
  log.append(1);
  other.append(1);
  await world.publish();
  first.assertFollows(log);
  assert.equal(world.sockets.length, 1);
  assert.ok(world.said.includes("unsubscribe"));
});

test("a refused topic that was left meanwhile ends nobody else", async () => {
  const log = logOf(2);
  const world = new World(log);
  const mints = new Mints();
  const khala = clientOf(world, { getToken: mints.getToken });
  const [first, second] = [new Follower(khala, TOPIC), new Follower(khala, OTHER)];
  await world.advance(0);
  assert.deepEqual(mints.asked, [[TOPIC, OTHER]]);
  await second.subscription.close();
  await mints.answer(world, FORBIDDEN);
  await mints.answer(world, "token");
  first.assertFollows(log);
  // The same at a renewal.
  const third = new Follower(khala, OTHER);
  await world.advance(0);
  await third.subscription.close();
  await mints.answer(world, FORBIDDEN);
  log.append(1);
  await world.publish();
  first.assertFollows(log);
  assert.equal(first.isOver, false);
  assert.equal(world.sockets.length, 1);
});

test("a token for the connection before is not presented on the next, which may have a better one", async () => {
  const [log, other] = [logOf(1), logOf(1, OTHER)];
  const world = new World(log, other);
  const mints = new Mints();
  const khala = clientOf(world, { getToken: mints.getToken });
  const first = new Follower(khala, TOPIC);
  await world.advance(0);
  await mints.answer(world, "one");
  const second = new Follower(khala, OTHER);
  await world.advance(0);
  await world.cutOff();
  await world.advance(1_000);
  assert.equal(mints.asked.length, 3);
  await mints.answer(world, "three", "newest");
  await mints.answer(world, "two");
  assert.deepEqual(world.said, ["hello", "subscribe"]);
  first.assertFollows(log);
  second.assertFollows(other);
});

test("nothing is followed after the client was closed: an error, not a wait for ever", async () => {
  const world = new World(logOf(1));
  const khala = clientOf(world);
  await khala.close();
  const late = new Follower(khala, TOPIC);
  await world.advance(0);
  assert.ok(late.error instanceof Unavailable);
});

test("leaving does not shorten the server's time", async () => {
  const log = logOf(1);
  const world = new World(log);
  const mints = new Mints();
  const khala = clientOf(world, { getToken: mints.getToken });
  const first = new Follower(khala, TOPIC);
  await world.advance(0);
  await mints.answer(world, new Unavailable("no", { retryAfterMs: 7_000 }));
  await first.subscription.close();
  await world.advance(1_000);
  const second = new Follower(khala, TOPIC);
  await world.advance(5_999);
  assert.equal(mints.asked.length, 1);
  await world.advance(1);
  await mints.answer(world, "token");
  second.assertFollows(log);
});
