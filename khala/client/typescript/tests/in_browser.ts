/** What only a real browser can show. Run by tests/browser/test_typescript_client.py, in its pages. */

import { chainStart, sealLinks } from "../src/chain.ts";
import { linkOf } from "../src/core/links.ts";
import { makeDeviceId } from "../src/device.ts";
import { browserEnvironment, type Socket } from "../src/environment.ts";
import { KhalaEvent } from "../src/events.ts";
import * as m from "../src/gen/messages.ts";
import { Khala } from "../src/khala.ts";
import { IndexedDbStore } from "../src/store/indexeddb.ts";
import { verifyEvents } from "../src/verify.ts";
import { encodeUtf8 } from "../src/wire/bytes.ts";
import { printJson } from "../src/wire/json_printing.ts";
import type { Frame } from "../src/wire/server_messages.ts";
import { parseStrict } from "../src/wire/strict_json.ts";
import type { Bytes } from "../src/wire/types.ts";

const TOPIC = `run:run_${"0".repeat(25)}1:events`;
const LINEAGE = `lin_${"0".repeat(25)}1`;
const FRAMES_PER_MESSAGE = 100;

function frameAt(seq: number): Frame {
  // A `thought`: field 1, the text.
  const text = encodeUtf8(`Thought ${seq}: `.padEnd(120, "look at the failing test first "));
  const payload = new Uint8Array([10, text.length, ...text]);
  return { topic: TOPIC, seq: BigInt(seq), kind: "thought", payload, schemaVersion: 1 };
}

async function historyOf(count: number): Promise<{ frames: readonly Frame[]; chains: readonly Bytes[] }> {
  const frames = Array.from({ length: count }, (_, index) => frameAt(index + 1));
  const start = await chainStart(TOPIC);
  return { frames, chains: [start, ...(await sealLinks(start, frames.map(linkOf)))] };
}

/** A node at the other end that replays one history. */
class ReplayingSocket implements Socket {
  onopen: Socket["onopen"] = null;
  onmessage: Socket["onmessage"] = null;
  onclose: Socket["onclose"] = null;
  readonly protocol = "khala.v1.json";

  constructor(private readonly answers: (message: m.ClientMessage) => readonly (() => string)[]) {
    setTimeout(() => this.onopen?.(new Event("open")), 0);
  }

  send(text: string): void {
    for (const answer of this.answers(parseStrict(text, m.ClientMessage))) {
      // One task per message, as a browser does it.
      setTimeout(() => this.onmessage?.(new MessageEvent("message", { data: answer() })), 0);
    }
  }

  close(): void {
    setTimeout(() => this.onclose?.(new CloseEvent("close", { code: 1000 })), 0);
  }
}

/** Return what a node answers whose topic has this history. */
function replayOf(
  frames: readonly Frame[],
  chains: readonly Bytes[],
): (message: m.ClientMessage) => readonly (() => string)[] {
  const control = (message: Partial<m.ServerMessage>) => (): string => printJson(message, m.ServerMessage);
  const head = BigInt(frames.length);
  const messageAt = (at: number) => (): string => {
    const wires = frames.slice(at, at + FRAMES_PER_MESSAGE).map(({ payload, schemaVersion, ...rest }) => ({
      ...rest,
      payload_bytes: payload,
      schema_version: schemaVersion,
    }));
    return control({ frames: wires })();
  };
  const welcome = '{"welcome":{"connection_id":"con_1","protocol":1,"schema":1,"token_expires_at":"300000"}}';
  return (message) => {
    if (message.hello) return [() => welcome];
    // The client is slower than this node and lets go of the topic: it asks again after its cursor.
    if (message.unsubscribe) return [control({ unsubscribed: { topic: TOPIC, reason: "UNSUBSCRIBED_REASON_ASKED" } })];
    if (!message.subscribe) return [];
    const start = Number(message.subscribe.topics[0]?.cursor?.seq ?? 0n);
    const subscribed = {
      topic: TOPIC,
      lineage: LINEAGE,
      head_seq: head,
      floor_seq: 1n,
      chain_at_start: chains[start]!,
      tier: "QOS_TIER_WARM",
      mode: "SUBSCRIPTION_MODE_REPLAYING",
      start_seq: BigInt(start),
    };
    const messages: (() => string)[] = [];
    for (let at = start; at < frames.length; at += FRAMES_PER_MESSAGE) messages.push(messageAt(at));
    const complete = { topic: TOPIC, through_seq: head, chain: chains.at(-1)! };
    return [control({ subscribed }), ...messages, control({ replay_complete: complete })];
  };
}

/** Measure the longest time between two chances to draw. */
function watchFrames(): () => number {
  let longestMs = 0;
  let isOver = false;
  let lastMs = performance.now();
  const note = (): void => {
    const nowMs = performance.now();
    longestMs = Math.max(longestMs, nowMs - lastMs);
    lastMs = nowMs;
    if (!isOver) requestAnimationFrame(note);
  };
  requestAnimationFrame(note);
  return () => {
    isOver = true;
    note();
    return longestMs;
  };
}

/** Follow a history of `count` events to its end, through everything but the network. */
export async function replay(count: number): Promise<object> {
  const { frames, chains } = await historyOf(count);
  const answers = replayOf(frames, chains);
  const environment = { ...browserEnvironment(), openSocket: () => new ReplayingSocket(answers) };
  const namespace = crypto.randomUUID();
  const khala = new Khala({
    url: location.origin,
    getToken: () => "token",
    deviceId: makeDeviceId(),
    namespace,
    environment,
  });
  const endWatch = watchFrames();
  const beganMs = performance.now();
  const events: KhalaEvent[] = [];
  let state = "";
  const subscription = khala.subscribe(TOPIC, { onStatus: (status) => (state = status.state) });
  for await (const event of subscription) {
    events.push(event);
    if (events.length === count) break;
  }
  const ms = performance.now() - beganMs;
  const longestFrameMs = endWatch();
  await khala.close();
  const store = await IndexedDbStore.open(namespace);
  const kept = await store.loadCursor(TOPIC);
  const verified = await verifyEvents(TOPIC, events, null, chains.at(-1)!);
  return {
    events: events.length,
    ms,
    longestFrameMs,
    state,
    keptSeq: Number(kept?.seq),
    isPersistent: khala.isPersistent,
    isVerified: verified.isVerified,
  };
}

/** Follow one history in this tab, in commits of `size`, into a store that other tabs write at the same time. */
export async function commitInto(namespace: string, count: number, size: number): Promise<readonly number[]> {
  const { frames, chains } = await historyOf(count);
  const events = frames.map((frame, index) => KhalaEvent.of({ frame, chain: chains[index + 1]! }));
  const store = await IndexedDbStore.open(namespace);
  await store.begin({ topic: TOPIC, seq: 0n, lineage: LINEAGE, chain: chains[0]! });
  const positions: number[] = [];
  for (let at = 0; at < count; at += size) {
    await store.commit(events.slice(at, at + size), LINEAGE);
    positions.push(Number((await store.loadCursor(TOPIC))!.seq));
  }
  return positions;
}

/** Return the seqs that a store keeps, and whether they are the history that they claim to be. */
export async function keptIn(namespace: string): Promise<{ seqs: readonly number[]; isVerified: boolean }> {
  const events = await (await IndexedDbStore.open(namespace)).readEvents(TOPIC, 0n, 100_000);
  const { isVerified } = await verifyEvents(TOPIC, events);
  return { seqs: events.map((event) => Number(event.seq)), isVerified };
}
