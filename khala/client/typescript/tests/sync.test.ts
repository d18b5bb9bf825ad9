/** The machine of all topics, where only a step by step look shows what matters. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Output } from "../src/core/happenings.ts";
import { type Decision, FOLLOWS_MAX, SyncMachine } from "../src/core/sync.ts";
import { Unavailable } from "../src/errors.ts";
import { startBytes } from "../src/core/links.ts";
import { control, framesMessage, LogModel, NodeModel, sealNow, sha256, topicNumber } from "./node_model.ts";

const TOPIC = topicNumber(1);
const OTHER = topicNumber(2);

/** A machine and its node, whose answers wait until they are delivered. */
class Session {
  readonly machine = new SyncMachine({ deviceId: "dev_00000001", clientBuildId: "0.1.0" }, () => 0.5);
  readonly node: NodeModel;
  readonly said: string[] = [];
  readonly given: bigint[] = [];
  readonly happened: string[] = [];
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
      this.happened.push(happening.type);
      if (happening.type === "delivered") this.given.push(...happening.frames.map(({ frame }) => frame.seq));
      if (happening.type !== "seal_due") continue;
      const { topic, ticket, chain, links } = happening;
      this.perform(this.machine.sealed(topic, ticket, sealNow(chain, links)));
    }
  }

  /** Let `text` of the node arrive, `nowMs` after the beginning. */
  receive(text: string, nowMs = 0): void {
    this.perform(this.machine.receiveUntrusted(text, nowMs));
  }

  /** Let what the node has said until now arrive. */
  deliver(): void {
    const texts = this.answers;
    this.answers = [];
    for (const text of texts) this.receive(text);
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

/** Follow TOPIC, whose tail is lost, and OTHER; return them live, and what brings `OTHER` one more frame. */
function withLostTail(): [Session, () => void] {
  const [log, other] = [logOf(2), logOf(1, 2)];
  const session = new Session(log, other);
  session.follow(TOPIC);
  session.follow(OTHER);
  session.connect();
  session.deliver();
  log.append(3);
  session.node.publish(); // and lost
  const frameOfOther = (): void => {
    other.append(1);
    session.receive(framesMessage([other.frames.at(-1)!]));
  };
  return [session, frameOfOther];
}

function gapsOf(session: Session): number {
  return session.happened.filter((type) => type === "gap_seen").length;
}

test("frames of others are no lost tail until it would have been our turn", () => {
  const [session, frameOfOther] = withLostTail();
  session.receive(session.node.heartbeat(), 0);
  // 20 messages for each of two topics, and the same once more.
  for (let number = 1; number < 60; number += 1) {
    frameOfOther();
    session.receive(session.node.heartbeat(), 15_000 * number);
    assert.equal(gapsOf(session), 0, String(number));
  }
  frameOfOther();
  session.receive(session.node.heartbeat(), 15_000 * 60);
  assert.equal(gapsOf(session), 1);
});

test("frames of others, then silence: a lost tail", () => {
  const [session, frameOfOther] = withLostTail();
  session.receive(session.node.heartbeat(), 0);
  frameOfOther();
  session.receive(session.node.heartbeat(), 15_000);
  assert.equal(gapsOf(session), 0);
  session.receive(session.node.heartbeat(), 22_499);
  assert.equal(gapsOf(session), 0);
  session.receive(session.node.heartbeat(), 22_500);
  assert.equal(gapsOf(session), 1);
});

test("a subscribe behind a renew is judged by the new grants", () => {
  const session = new Session(logOf(1), logOf(2, 2));
  session.follow(TOPIC);
  session.follow(OTHER);
  session.connect();
  session.deliver();
  session.receive(control({ unsubscribed: { topic: OTHER, reason: "UNSUBSCRIBED_REASON_FORBIDDEN" } }));
  session.said.length = 0;
  session.perform(session.machine.renew("second", [TOPIC]));
  session.follow(OTHER);
  session.perform(session.machine.tick(0));
  assert.deepEqual(session.said, ["renew"]);
  session.deliver();
  assert.equal(session.happened.at(-1), "token_due");
});

test("a token without a topic that is followed is not presented", () => {
  const session = new Session(logOf(1), logOf(2, 2));
  session.follow(TOPIC);
  session.follow(OTHER);
  session.connect();
  session.deliver();
  session.said.length = 0;
  session.perform(session.machine.renew("second", [TOPIC]));
  assert.deepEqual(session.said, []);
  assert.equal(session.happened.at(-1), "token_due");
  session.perform(session.machine.renew("third", [OTHER, TOPIC]));
  assert.deepEqual(session.said, ["renew"]);
});

/** Cut 1,000 clients at 0 ms; `judge` says null (come in), 0 (nobody there) or when to return. Return the shares of seconds. */
function secondsOfReturn(judge: (nowMs: number) => number | null, fromMs: number): number[] {
  const due: [number, SyncMachine][] = [];
  const decide = (nowMs: number, machine: SyncMachine, decision: Decision): void => {
    assert.ok(decision.type === "reconnect");
    due.push([nowMs + decision.delayMs, machine]);
  };
  for (let number = 1; number <= 1_000; number += 1) {
    let state = number;
    const random = (): number => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
    const machine = new SyncMachine({ deviceId: "dev_00000001", clientBuildId: "0.1.0" }, random);
    random();
    decide(0, machine, machine.disconnected(null, 0));
  }
  const shares: number[] = [];
  while (due.length > 0) {
    due.sort(([one], [other]) => other - one);
    const [nowMs, machine] = due.pop()!;
    const retryAfterMs = judge(nowMs);
    if (retryAfterMs === null) {
      const second = Math.floor((nowMs - fromMs) / 1_000);
      shares[second] = (shares[second] ?? 0) + 0.001;
    } else {
      decide(nowMs, machine, machine.connectFailed(new Unavailable("no", { retryAfterMs })));
    }
  }
  return shares;
}

test("CL-02: 1,000 clients cut at once do not storm a node that was away", () => {
  const shares = secondsOfReturn((nowMs) => (nowMs >= 30_000 ? null : 0), 30_000);
  assert.ok(Math.max(...shares.filter(() => true)) <= 0.15);
  assert.ok(shares.length <= 31);
});

test("CL-02: 1,000 clients that are told their turns come at them", () => {
  let turnMs = 0;
  const asked = new Set<number>();
  const judge = (nowMs: number): number | null => {
    if (asked.delete(Math.round(nowMs))) return null;
    turnMs += 10;
    asked.add(Math.round(nowMs + turnMs));
    return turnMs;
  };
  const shares = secondsOfReturn(judge, 0);
  assert.ok(Math.max(...shares.filter(() => true)) <= 0.15);
  assert.ok(shares.length <= 12);
});
