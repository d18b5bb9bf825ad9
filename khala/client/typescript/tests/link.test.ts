/** The life of a connection: what is sent, when it is made again, and how it ends. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ChainMismatch, Forbidden, KhalaError, ReauthRequired, StaleCursor, UpgradeRequired } from "../src/errors.ts";
import { clientOf, Follower } from "./following.ts";
import { control, errorText, framesMessage, LogModel, NodeModel, topicNumber } from "./node_model.ts";
import { World } from "./world.ts";

const TOPIC = topicNumber(1);
const OTHER = topicNumber(2);

function logOf(count: number, topic = TOPIC): LogModel {
  const log = new LogModel(topic);
  log.append(count);
  return log;
}

async function following(world: World): Promise<[Follower, ReturnType<typeof clientOf>]> {
  const khala = clientOf(world);
  const follower = new Follower(khala, TOPIC);
  await world.advance(0);
  return [follower, khala];
}

/** Follow, and hold every hash back from the first frame on. */
async function followingWithHeldHashes(world: World): Promise<[Follower, () => void]> {
  let release = (): void => {};
  const { openSocket } = world;
  world.openSocket = () => {
    release = world.holdHashes();
    world.openSocket = openSocket;
    return openSocket();
  };
  const [follower] = await following(world);
  return [follower, () => release()];
}

describe("following", () => {
  test("replays, goes live, and stays strictly +1", async () => {
    const log = logOf(250);
    const world = new World(log);
    const [follower] = await following(world);
    follower.assertFollows(log);
    assert.deepEqual(follower.states, ["replaying", "live"]);
    log.append(3);
    await world.publish();
    follower.assertFollows(log);
    assert.deepEqual(world.said, ["hello", "subscribe"]);
    assert.deepEqual(follower.subscription.counts, { applied: 253n, duplicates: 0n, gaps: 0n });
  });

  test("an empty topic is live at once", async () => {
    const world = new World(logOf(0));
    const [follower] = await following(world);
    assert.deepEqual(follower.states, ["replaying", "live"]);
    assert.deepEqual(follower.seqs, []);
  });

  test("no topic, no socket; leaving the last one hangs up", async () => {
    const world = new World(logOf(1));
    const khala = clientOf(world);
    await world.advance(60_000);
    assert.equal(world.sockets.length, 0);
    const follower = new Follower(khala, TOPIC);
    await world.advance(0);
    await follower.subscription.close();
    await world.advance(0);
    assert.equal(world.socket.closedWith, 1000);
    await world.advance(60_000);
    assert.equal(world.sockets.length, 1);
    assert.equal(follower.isOver, true);
  });

  test("a topic added later gets a new token first", async () => {
    const [log, other] = [logOf(2), logOf(3, OTHER)];
    const world = new World(log, other);
    const minted: string[][] = [];
    const khala = clientOf(world, { getToken: (topics) => (minted.push([...topics]), "token") });
    const first = new Follower(khala, TOPIC);
    await world.advance(0);
    const second = new Follower(khala, OTHER);
    await world.advance(0);
    first.assertFollows(log);
    second.assertFollows(other);
    assert.deepEqual(minted, [[TOPIC], [TOPIC, OTHER]]);
    assert.deepEqual(world.said, ["hello", "subscribe", "renew", "subscribe"]);
    assert.equal(world.sockets.length, 1);
  });

  test("the same topic twice is refused", async () => {
    const world = new World(logOf(1));
    const [, khala] = await following(world);
    const again = new Follower(khala, TOPIC, { after: "now" });
    await world.advance(0);
    assert.ok(again.error instanceof RangeError);
  });

  test("left and followed again at once: the old subscription's frames are nobody's", async () => {
    const log = logOf(4);
    const world = new World(log, logOf(1, OTHER));
    const [first, khala] = await following(world);
    new Follower(khala, OTHER);
    await world.advance(0);
    void first.subscription.close();
    const second = new Follower(khala, TOPIC, { after: "beginning" });
    log.append(1);
    await world.publish();
    await world.advance(0);
    second.assertFollows(log);
    assert.deepEqual(first.seqs, [1, 2, 3, 4]);
    assert.equal(world.sockets.length, 1);
  });

  test("a page whose callbacks throw loses nothing, and hears of it", async (context) => {
    const reported: unknown[] = [];
    context.mock.method(console, "error", (error: unknown) => reported.push(error));
    const log = logOf(3);
    const world = new World(log);
    const fail = (): never => {
      throw new Error("the page's own");
    };
    const subscription = clientOf(world).subscribe(TOPIC, { onStatus: fail, onNotice: fail });
    const seqs: bigint[] = [];
    void (async () => {
      for await (const event of subscription) seqs.push(event.seq);
    })();
    await world.advance(0);
    assert.deepEqual(seqs, [1n, 2n, 3n]);
    assert.ok(reported.length > 0);
  });

  test("after: now, earliest and a cursor", async () => {
    const log = logOf(9);
    log.floorSeq = 4n;
    const world = new World(log);
    const now = new Follower(clientOf(world), TOPIC, { after: "now" });
    const earliest = new Follower(clientOf(world), TOPIC, { after: "earliest" });
    const cursor = { topic: TOPIC, seq: 7n, lineage: log.lineage, chain: log.chainAt(7n) };
    const resumed = new Follower(clientOf(world), TOPIC, { after: cursor });
    await world.advance(0);
    assert.deepEqual([now.seqs, earliest.seqs, resumed.seqs], [[], [4, 5, 6, 7, 8, 9], [8, 9]]);
  });
});

describe("what the path does", () => {
  test("repeats are discarded", async () => {
    const log = logOf(5);
    const world = new World(log);
    world.path = (texts) => texts.flatMap((text) => [text, ...(text.includes('"frames":[{') ? [text] : [])]);
    const [follower] = await following(world);
    follower.assertFollows(log);
    assert.equal(follower.subscription.counts.duplicates, 5n);
  });

  test("a gap is never applied: the topic resumes after its cursor", async () => {
    const log = logOf(2);
    const world = new World(log);
    const [follower] = await following(world);
    log.append(3);
    await world.say(framesMessage(log.frames.slice(3)));
    follower.assertFollows(log);
    assert.equal(follower.count("gap_seen"), 1);
    assert.deepEqual(world.said, ["hello", "subscribe", "unsubscribe", "subscribe"]);
  });

  test("a path that keeps losing frames gets a new connection after the third gap", async () => {
    const log = logOf(1);
    const world = new World(log);
    const [follower] = await following(world);
    world.path = (texts) => texts.filter((text) => !text.includes('"frames":[{'));
    log.append(5);
    await world.say(framesMessage(log.frames.slice(3)));
    assert.equal(world.socket.closedWith, 1000);
    world.path = (texts) => texts;
    await world.advance(1_000);
    follower.assertFollows(log);
    assert.equal(world.sockets.length, 2);
    assert.equal(follower.count("gap_seen"), 3);
  });

  test("a lost tail is found by two heartbeats, not by one", async () => {
    const log = logOf(2);
    const world = new World(log);
    const [follower] = await following(world);
    log.append(2);
    world.socket.node.publish(); // and lost
    await world.say(world.socket.node.heartbeat());
    await world.say(world.socket.node.heartbeat()); // at the same moment: a slow path brought both
    assert.equal(follower.count("gap_seen"), 0);
    assert.deepEqual(follower.seqs, [1, 2]);
    await world.advance(15_000);
    await world.say(world.socket.node.heartbeat());
    assert.equal(follower.count("gap_seen"), 1);
    follower.assertFollows(log);
  });

  test("a heartbeat at our seq proves it, and moves nothing", async () => {
    const log = logOf(2);
    const world = new World(log);
    const [follower] = await following(world);
    await world.say(world.socket.node.heartbeat());
    assert.equal(follower.count("verified"), 1);
    assert.equal(follower.subscription.cursor?.seq, 2n);
  });

  const forgeries: [string, (log: LogModel, world: World) => Promise<void>][] = [
    [
      "a changed payload, at the next heartbeat",
      async (log, world) => {
        log.append(1);
        await world.say(framesMessage([{ ...log.frames.at(-1)!, payload: new Uint8Array([1]) }]));
        await world.say(world.socket.node.heartbeat());
      },
    ],
    [
      "a changed kind, at the end of a replay",
      async (log, world) => {
        log.append(1);
        await world.say(framesMessage([{ ...log.frames.at(-1)!, kind: "action" }]));
        const complete = { topic: log.topic, through_seq: log.headSeq, chain: log.chainAt(log.headSeq) };
        await world.say(control({ replay_complete: complete }));
      },
    ],
  ];
  for (const [name, forge] of forgeries) {
    test(`another history ends the topic: ${name}`, async () => {
      const log = logOf(2);
      const world = new World(log);
      const [follower] = await following(world);
      await forge(log, world);
      assert.ok(follower.error instanceof ChainMismatch);
      assert.equal(follower.error.seq, 3n);
      assert.ok(follower.error instanceof StaleCursor && follower.error.reason === "lineage_mismatch");
    });
  }

  test("a forged replay is not given to the end: the mismatching frame never is", async () => {
    const log = logOf(3);
    const world = new World(log);
    world.path = (texts) =>
      texts.map((text) =>
        text.includes('"frames":[{')
          ? framesMessage(log.frames.map((frame) => (frame.seq === 3n ? { ...frame, schemaVersion: 2 } : frame)))
          : text,
      );
    const [follower, release] = await followingWithHeldHashes(world);
    release(); // the node's statement was there before the hashes
    await world.advance(0);
    assert.deepEqual(follower.seqs, [1, 2]);
    assert.ok(follower.error instanceof ChainMismatch);
  });

  test("a foreign lineage on an open socket ends the topic", async () => {
    const log = logOf(2);
    const world = new World(log);
    const [follower] = await following(world);
    world.answers = (text) =>
      text.includes('"subscribe"')
        ? [
            control({
              subscribed: {
                topic: TOPIC,
                lineage: "lin_other",
                head_seq: 2n,
                floor_seq: 1n,
                chain_at_start: log.chainAt(2n),
                tier: "QOS_TIER_WARM",
                mode: "SUBSCRIPTION_MODE_LIVE",
                start_seq: 2n,
              },
            }),
          ]
        : null;
    await world.cutOff();
    await world.advance(1_000);
    assert.ok(follower.error instanceof ChainMismatch);
    assert.equal(follower.error.lineage, "lin_other");
  });

  test("a forged beginning is refused: chain(0) is known to everybody", async () => {
    const log = logOf(2);
    const world = new World(log);
    log.chains[0] = new Uint8Array(32);
    const [follower] = await following(world);
    assert.ok(follower.error instanceof ChainMismatch);
    assert.deepEqual(follower.seqs, []);
  });

  test("text that is not of the protocol closes the connection, and following goes on", async () => {
    const log = logOf(2);
    const world = new World(log);
    const [follower] = await following(world);
    for (const text of [
      '{"quasar":1}',
      '{"renewed":{},"renewed":{}}',
      "not json",
      framesMessage(logOf(1, OTHER).frames),
    ]) {
      await world.say(text);
      assert.equal(world.socket.closedWith, 1000);
      log.append(1);
      await world.advance(10_000);
      follower.assertFollows(log);
    }
    assert.equal(world.sockets.length, 5);
  });

  test("an erased frame without its hash closes; frames before it in the same message are kept", async () => {
    const log = logOf(2);
    const world = new World(log);
    const [follower] = await following(world);
    log.append(2);
    const poison = { ...log.frames.at(-1)!, kind: "khala.erased", payload: new Uint8Array() };
    await world.say(framesMessage([log.frames[2]!, poison]));
    assert.deepEqual(follower.seqs, [1, 2, 3]);
    await world.advance(1_000);
    follower.assertFollows(log);
  });
});

describe("reconnecting", () => {
  test("resumes after the cursor with lineage and chain", async () => {
    const log = logOf(3);
    const world = new World(log);
    const [follower] = await following(world);
    await world.cutOff();
    log.append(2);
    await world.advance(1_000);
    follower.assertFollows(log);
    const asked = world.socket.node.said[1]!.subscribe!.topics[0]!;
    assert.deepEqual(asked.cursor, { seq: 3n, lineage: log.lineage, chain: log.chainAt(3n) });
    assert.deepEqual(follower.states, ["replaying", "live", "offline", "replaying", "live"]);
  });

  test("full jitter: 250 ms doubling to 30 s, each wait a draw from it", async () => {
    const world = new World(logOf(1));
    await following(world);
    world.isReachable = false;
    await world.cutOff();
    await world.advance(200_000);
    const waits = world.openedAtMs.slice(1).map((atMs, index) => atMs - world.openedAtMs[index]!);
    assert.deepEqual(waits.slice(0, 9), [125, 250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
  });

  test("ARC-04: where WebSocket is blocked the page is offline, and nothing is read another way", async () => {
    const log = logOf(3);
    const world = new World(log);
    world.isReachable = false;
    const khala = clientOf(world, { getBearer: () => "bearer" });
    khala.http!.readEvents = () => assert.fail("read over HTTP");
    const follower = new Follower(khala, TOPIC, { historyByPages: true });
    await world.advance(300_000);
    assert.equal(follower.subscription.status.state, "offline");
    assert.deepEqual(follower.seqs, []);
    assert.ok(follower.count("disconnected") > 5);
  });

  test("a minute without an end forgives", async () => {
    const world = new World(logOf(1));
    await following(world);
    world.isReachable = false;
    await world.cutOff();
    await world.advance(10_000);
    world.isReachable = true;
    await world.advance(10_000);
    assert.equal(world.socket.isGone, false);
    // A dead watch would end it: the node has to say something.
    for (let minute = 0; minute < 3; minute += 1) {
      await world.advance(21_000);
      await world.say(world.socket.node.heartbeat());
    }
    const before = world.now;
    await world.cutOff();
    await world.advance(1_000);
    assert.equal(world.openedAtMs.at(-1)! - before, 125);
  });

  test("the server's return time replaces the draw, and no hint shortens it", async () => {
    const world = new World(logOf(1));
    const [follower] = await following(world);
    await world.say(errorText("unavailable", { retryable: true, retry_after_ms: 7_000 }));
    const before = world.now;
    await world.cutOff(4004);
    world.giveHint();
    await world.advance(6_999);
    assert.equal(world.sockets.length, 1);
    await world.advance(1);
    assert.equal(world.openedAtMs.at(-1)! - before, 7_000);
    assert.ok(follower.notices.some((notice) => notice.type === "disconnected" && notice.code === "unavailable"));
  });

  test("a hint (online, visible again) ends our own wait", async () => {
    const world = new World(logOf(1));
    await following(world);
    world.isReachable = false;
    await world.cutOff();
    await world.advance(20_000);
    const count = world.sockets.length;
    world.isReachable = true;
    world.giveHint();
    await world.advance(0);
    assert.equal(world.sockets.length, count + 1);
    assert.equal(world.socket.isGone, false);
  });

  test("nothing received for 45 s: dead", async () => {
    const log = logOf(1);
    const world = new World(log);
    const [follower] = await following(world);
    await world.advance(44_999);
    assert.equal(world.socket.closedWith, null);
    assert.equal(world.said.filter((name) => name === "heartbeat").length, 2);
    await world.advance(1);
    assert.equal(world.sockets[0]!.closedWith, 1000);
    await world.advance(1_000);
    assert.equal(world.sockets.length, 2);
    assert.equal(follower.subscription.status.state, "live");
  });

  test("no welcome within 10 s: closed", async () => {
    const world = new World(logOf(1));
    world.answers = (text) => (text.includes('"hello"') ? [] : null);
    await following(world);
    await world.advance(9_999);
    assert.equal(world.socket.closedWith, null);
    await world.advance(1);
    assert.equal(world.socket.closedWith, 1000);
  });

  test("a socket that never opens is given up after 10 s", async () => {
    const world = new World(logOf(1));
    const open = world.openSocket;
    world.openSocket = () => {
      const socket = open();
      queueMicrotask(() => (socket.onopen = null));
      return socket;
    };
    await following(world);
    await world.advance(10_200);
    assert.equal(world.sockets.length, 2);
  });

  test("go_away: leaves when it was told, and comes back without a draw", async () => {
    const log = logOf(1);
    const world = new World(log);
    const [follower] = await following(world);
    await world.say(control({ go_away: { reconnect_after_ms: 3_000, deadline_ms: 30_000, ticket: "" } }));
    await world.advance(2_999);
    assert.equal(world.socket.closedWith, null);
    log.append(1);
    await world.advance(1);
    assert.equal(world.sockets[0]!.closedWith, 1000);
    follower.assertFollows(log);
    assert.equal(world.sockets.length, 2);
  });

  test("go_away: whose turn comes after the node's end leaves with it, and stays away until its turn", async () => {
    const log = logOf(1);
    const world = new World(log);
    const [follower] = await following(world);
    await world.say(control({ go_away: { reconnect_after_ms: 9_000, deadline_ms: 4_000, ticket: "" } }));
    await world.advance(4_000);
    assert.equal(world.sockets[0]!.closedWith, 1000);
    await world.advance(4_999);
    assert.equal(world.sockets.length, 1);
    await world.advance(1);
    assert.equal(world.sockets.length, 2);
    log.append(1);
    await world.publish();
    follower.assertFollows(log);
  });

  test("a node that does not answer our close is left after a second", async () => {
    const log = logOf(1);
    const world = new World(log);
    const [follower] = await following(world);
    const deaf = world.socket;
    deaf.close = (code = 1000) => {
      deaf.closedWith ??= code;
      deaf.isGone = true;
    };
    await world.say("not json");
    await world.advance(999);
    assert.equal(world.sockets.length, 1);
    await world.advance(1_000);
    assert.equal(world.sockets.length, 2);
    assert.equal(follower.subscription.status.state, "live");
  });

  test("hashes that come after the connection has ended are not lost, nor asked for again", async () => {
    const log = logOf(4);
    const world = new World(log);
    const [follower, release] = await followingWithHeldHashes(world);
    await world.cutOff();
    await world.advance(1_000);
    assert.deepEqual([follower.seqs, world.said], [[], ["hello"]]);
    release();
    await world.advance(0);
    follower.assertFollows(log);
    assert.equal(world.socket.node.said[1]!.subscribe!.topics[0]!.cursor!.seq, 4n);
  });
});

describe("authority", () => {
  test("renews at two thirds of the life, earlier by the jitter", async () => {
    const world = new World(logOf(1));
    await following(world);
    const began = world.now;
    let renewedAt = 0;
    world.answers = (text) => {
      if (text.includes('"renew"')) renewedAt = world.now;
      return null;
    };
    while (renewedAt === 0 && world.now < began + 300_000) {
      await world.advance(1_000);
      await world.say(world.socket.node.heartbeat());
    }
    // 2/3 minus 0.1 times the draw of 0.5, of 300 s; the test looks once a second.
    assert.ok(renewedAt - began > 184_000 && renewedAt - began < 186_000, String(renewedAt - began));
    assert.equal(world.sockets.length, 1);
  });

  test("a mint that fails for now is tried again, then the connection goes on", async () => {
    const log = logOf(2);
    const world = new World(log);
    let calls = 0;
    const khala = clientOf(world, {
      getToken: () => {
        calls += 1;
        if (calls < 4) throw new Error("the application's backend is away");
        return "token";
      },
    });
    const follower = new Follower(khala, TOPIC);
    await world.advance(10_000);
    assert.equal(calls, 4);
    follower.assertFollows(log);
  });

  test("a mint that says sign in again ends every topic", async () => {
    const world = new World(logOf(2), logOf(2, OTHER));
    const khala = clientOf(world, {
      getToken: () => {
        throw new ReauthRequired("reauth_required");
      },
    });
    const followers = [TOPIC, OTHER].map((topic) => new Follower(khala, topic));
    await world.advance(0);
    for (const follower of followers) {
      assert.ok(follower.error instanceof ReauthRequired);
      assert.deepEqual(follower.states, ["ended"]);
    }
    assert.equal(world.sockets.length, 0);
  });

  test("one topic of two that may not be read: that one ends, the other goes on", async () => {
    const log = logOf(2);
    const world = new World(log);
    const khala = clientOf(world, {
      getToken: (topics) => {
        if (topics.includes(OTHER)) throw new Forbidden("forbidden", { topic: OTHER });
        return "token";
      },
    });
    const [follower, refused] = [new Follower(khala, TOPIC), new Follower(khala, OTHER)];
    await world.advance(0);
    follower.assertFollows(log);
    assert.ok(refused.error instanceof Forbidden);
    assert.equal(refused.error.topic, OTHER);
  });

  test("a mint that never answers counts as trouble after 20 s", async () => {
    const world = new World(logOf(1));
    const khala = clientOf(world, { getToken: () => new Promise(() => {}) });
    const follower = new Follower(khala, TOPIC);
    await world.advance(20_000);
    assert.equal(follower.count("disconnected"), 1);
  });

  const endings: [string, number, string, (error: unknown) => boolean, number][] = [
    ["token expired: mints and resumes at once", 4005, "token_expired", (error) => error === null, 2],
    ["a replayed token: mints once more, then sign in", 4502, "token_replayed", (e) => e instanceof ReauthRequired, 2],
    ["revoked: mints once, then sign in", 4501, "reauth_required", (error) => error instanceof ReauthRequired, 2],
    ["upgrade required", 4504, "upgrade_required", (error) => error instanceof UpgradeRequired, 1],
    ["forbidden", 4503, "forbidden", (error) => error instanceof Forbidden, 1],
    ["a protocol error of ours", 4500, "protocol_error", (error) => error instanceof KhalaError, 1],
    [
      "a retryable error does not open a range that says do not",
      4500,
      "unavailable",
      (e) => e instanceof KhalaError,
      1,
    ],
  ];
  for (const [name, closeCode, code, isExpected, connections] of endings) {
    test(`ends with ${closeCode} ${code}: ${name}`, async () => {
      const world = new World(logOf(1));
      let hellos = 0;
      world.answers = (text, socket) => {
        if (!text.includes('"hello"') || (code === "token_expired" && (hellos += 1) > 1)) return null;
        world.schedule(() => world.end(socket, closeCode), 1);
        return [errorText(code)];
      };
      const [follower] = await following(world);
      await world.advance(20_000);
      assert.ok(isExpected(follower.error), String(follower.error));
      assert.equal(world.sockets.length, connections);
    });
  }

  test("a right that is lost ends one topic as forbidden", async () => {
    const [log, other] = [logOf(1), logOf(1, OTHER)];
    const world = new World(log, other);
    const [follower, khala] = await following(world);
    const second = new Follower(khala, OTHER);
    await world.advance(0);
    world.socket.node.positions.delete(TOPIC);
    await world.say(control({ unsubscribed: { topic: TOPIC, reason: "UNSUBSCRIBED_REASON_FORBIDDEN" } }));
    assert.ok(follower.error instanceof Forbidden);
    other.append(1);
    await world.publish();
    second.assertFollows(other);
  });
});

describe("one topic", () => {
  test("stale: ends with the reason and the observation, after what came before it", async () => {
    const log = logOf(5);
    const world = new World(log);
    const [follower] = await following(world);
    await world.cutOff();
    log.append(10);
    log.floorSeq = 9n;
    await world.advance(1_000);
    assert.ok(follower.error instanceof StaleCursor);
    const { reason, headSeq, floorSeq } = follower.error;
    assert.deepEqual([reason, headSeq, floorSeq], ["retention_expired", 15n, 9n]);
    assert.deepEqual(follower.seqs, [1, 2, 3, 4, 5]);
  });

  test("frames that were accepted before an end are given before it", async () => {
    const log = logOf(3);
    const world = new World(log);
    world.answers = (text, socket) => {
      if (!text.includes('"subscribe"')) return null;
      return [...socket.node.receive(text), socket.node.stale(log, "STALE_REASON_RETENTION_EXPIRED")];
    };
    const [follower, release] = await followingWithHeldHashes(world);
    assert.deepEqual([follower.seqs, follower.error], [[], null]);
    release();
    await world.advance(0);
    follower.assertFollows(log);
    assert.ok(follower.error instanceof StaleCursor);
  });

  test("a refusal for now is asked again at its time, the connection stays", async () => {
    const log = logOf(2);
    const world = new World(log);
    let refusals = 0;
    world.answers = (text) =>
      text.includes('"subscribe"') && (refusals += 1) <= 2
        ? [errorText("unavailable", { topic: TOPIC, retryable: true, retry_after_ms: 500 })]
        : null;
    const [follower] = await following(world);
    assert.equal(follower.count("retrying"), 1);
    await world.advance(999);
    assert.deepEqual(follower.seqs, []);
    await world.advance(1);
    follower.assertFollows(log);
    assert.equal(world.sockets.length, 1);
  });

  test("released as a slow consumer: resumes by itself", async () => {
    const log = logOf(2);
    const world = new World(log);
    const [follower] = await following(world);
    world.socket.node.positions.delete(TOPIC);
    await world.say(control({ unsubscribed: { topic: TOPIC, reason: "UNSUBSCRIBED_REASON_SLOW_CONSUMER" } }));
    assert.equal(follower.count("released"), 1);
    log.append(1);
    await world.advance(125);
    follower.assertFollows(log);
  });

  test("forbidden at subscribe ends it", async () => {
    const world = new World();
    const [follower] = await following(world);
    assert.ok(follower.error instanceof Forbidden);
  });
});

describe("hashing", () => {
  test("frames that come faster than hashes are left at the node, and asked for again", async () => {
    const log = logOf(10_000);
    const world = new World(log);
    const [follower, release] = await followingWithHeldHashes(world);
    assert.deepEqual(world.said, ["hello", "subscribe", "unsubscribe"]);
    release();
    await world.advance(0);
    assert.equal(world.socket.node.said[3]!.subscribe!.topics[0]!.cursor!.seq, 4_100n);
    follower.assertFollows(log);
    assert.equal(follower.count("gap_seen"), 0);
  });

  test("large payloads count by their bytes", async () => {
    const log = logOf(0);
    log.append(90, new Uint8Array(100_000));
    const world = new World(log);
    const { publish } = NodeModel.prototype;
    NodeModel.prototype.publish = function (chunk = 10) {
      return publish.call(this, chunk);
    };
    const [follower, release] = await followingWithHeldHashes(world);
    NodeModel.prototype.publish = publish;
    assert.deepEqual(world.said, ["hello", "subscribe", "unsubscribe"]);
    release();
    await world.advance(0);
    follower.assertFollows(log);
  });

  test("a browser that cannot hash ends the topic: nothing is given unverified", async () => {
    const log = logOf(3);
    const world = new World(log);
    const [follower] = await following(world);
    world.digest = async () => {
      throw new KhalaError("internal", { message: "not a secure context" });
    };
    log.append(1);
    await world.publish();
    assert.deepEqual(follower.seqs, [1, 2, 3]);
    assert.ok(follower.error instanceof KhalaError && follower.error.message === "not a secure context");
    await world.advance(0);
    assert.equal(world.socket.closedWith, 1000);
  });
});

describe("the page's own hands", () => {
  test("cut and restore: the loss is zero", async () => {
    const log = logOf(3);
    const world = new World(log);
    const [follower, khala] = await following(world);
    khala.cutNetwork();
    await world.advance(0);
    assert.equal(follower.subscription.status.state, "offline");
    log.append(4);
    await world.advance(120_000);
    assert.equal(world.sockets.length, 1);
    khala.restoreNetwork();
    await world.advance(0);
    follower.assertFollows(log);
    assert.equal(follower.subscription.status.state, "live");
  });

  test("cut while a token is being minted: no connection is made", async () => {
    const log = logOf(2);
    const world = new World(log);
    let release = (_token: string): void => {};
    const getToken = () => new Promise<string>((resolve) => (release = resolve));
    const khala = clientOf(world, { getToken });
    const follower = new Follower(khala, TOPIC);
    await world.advance(0);
    khala.cutNetwork();
    release("token");
    await world.advance(5_000);
    assert.equal(world.sockets.length, 0);
    khala.restoreNetwork();
    await world.advance(0);
    release("token");
    await world.advance(0);
    follower.assertFollows(log);
  });

  test("close ends every loop and the connection", async () => {
    const world = new World(logOf(1));
    const [follower, khala] = await following(world);
    await khala.close();
    await world.advance(0);
    assert.deepEqual([follower.isOver, follower.error], [true, null]);
    assert.equal(world.socket.closedWith, 1000);
    await world.advance(60_000);
    assert.equal(world.sockets.length, 1);
  });

  test("a slow loop pauses its topic and gets everything in the end", async () => {
    const log = logOf(5_000);
    const world = new World(log);
    const khala = clientOf(world);
    const subscription = khala.subscribe(TOPIC, { after: "beginning" });
    const first = subscription.next();
    await world.advance(0);
    assert.equal((await first).value?.seq, 1n);
    assert.ok(world.said.includes("unsubscribe"), "paused");
    for (let seq = 2n; seq <= 5_000n; seq += 1n) {
      const pending = subscription.next();
      if (seq % 500n === 0n) await world.advance(0);
      assert.equal((await pending).value?.seq, seq);
    }
    assert.equal(subscription.counts.applied, 5_000n);
  });
});
