/** The machine of all topics, where only a step by step look shows what matters. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Output } from "../src/core/happenings.ts";
import { FOLLOWS_MAX, SyncMachine } from "../src/core/sync.ts";
import { startBytes } from "../src/core/links.ts";
import { LogModel, NodeModel, sealNow, sha256, topicNumber } from "./node_model.ts";

const TOPIC = topicNumber(1);

/** A machine and its node, whose answers wait until they are delivered. */
class Session {
  readonly machine = new SyncMachine({ deviceId: "dev_00000001", clientBuildId: "0.1.0" }, () => 0.5);
  readonly node: NodeModel;
  readonly said: string[] = [];
  readonly given: bigint[] = [];
  private answers: string[] = [];

  constructor(...logs: LogModel[]) {
    this.node = new NodeModel(new Map(logs.map((log) => [log.topic, log])), () => 0);
  }

  follow(topic: string, after: "beginning" | "now" = "beginning"): void {
    this.perform(this.machine.follow(topic, after, sha256(startBytes(topic))));
  }

  connect(): void {
    this.perform(this.machine.connected("token", this.machine.topics, 0));
    this.deliver();
  }

  perform(output: Output): void {
    for (const text of output.send) {
      this.said.push(Object.keys(JSON.parse(text) as object)[0]!);
      this.answers.push(...this.node.receive(text));
    }
    for (const happening of output.happenings) {
      if (happening.type === "delivered") this.given.push(...happening.frames.map(({ frame }) => frame.seq));
      if (happening.type !== "seal_due") continue;
      const { topic, ticket, chain, links } = happening;
      this.perform(this.machine.sealed(topic, ticket, sealNow(chain, links)));
    }
  }

  /** Let what the node has said until now arrive. */
  deliver(): void {
    const texts = this.answers;
    this.answers = [];
    for (const text of texts) this.perform(this.machine.receiveUntrusted(text, 0));
  }
}

function logOf(count: number, number = 1): LogModel {
  const log = new LogModel(topicNumber(number));
  log.append(count);
  return log;
}

test("left before it was answered and followed again elsewhere: the answer to the first is nobody's", () => {
  const session = new Session(logOf(5));
  session.follow(TOPIC);
  session.connect();
  assert.deepEqual(session.said, ["hello", "subscribe"]);
  session.perform(session.machine.leave(TOPIC));
  session.follow(TOPIC, "now");
  assert.deepEqual(session.said, ["hello", "subscribe", "unsubscribe"]);
  session.deliver();
  assert.deepEqual(session.said, ["hello", "subscribe", "unsubscribe", "subscribe"]);
  session.deliver();
  assert.deepEqual(session.given, []);
  assert.equal(session.machine.followOf(TOPIC)?.cursor?.seq, 5n);
});

test("65 topics take two subscribes, and 257 are refused", () => {
  const logs = Array.from({ length: 65 }, (_, index) => logOf(0, index + 1));
  const session = new Session(...logs);
  for (const log of logs) session.follow(log.topic);
  session.connect();
  assert.deepEqual(session.said, ["hello", "subscribe", "subscribe"]);
  assert.deepEqual(
    session.node.said.slice(1).map((message) => message.subscribe?.topics.length),
    [64, 1],
  );
  for (let number = 66; number <= FOLLOWS_MAX; number += 1) session.follow(topicNumber(number));
  assert.throws(() => session.follow(topicNumber(FOLLOWS_MAX + 1)), RangeError);
});

test("a paused topic is left, and resumed after its cursor", () => {
  const log = logOf(3);
  const session = new Session(log);
  session.follow(TOPIC);
  session.connect();
  session.deliver();
  session.perform(session.machine.pause(TOPIC));
  session.deliver();
  log.append(2);
  assert.deepEqual(session.said, ["hello", "subscribe", "unsubscribe"]);
  session.perform(session.machine.resume(TOPIC));
  session.deliver();
  assert.deepEqual(session.given, [1n, 2n, 3n, 4n, 5n]);
});
