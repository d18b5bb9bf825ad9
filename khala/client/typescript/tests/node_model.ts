/**
 * A node as its clients see it: what the client is tested against.
 *
 * Speaks `khala.v1.json`. It keeps the promises of a node (a topic's frames of one subscription are strictly
 * +1, barriers in their places); whoever tests faults puts them between this model and the client. Chains
 * are computed by Node's own hash, not by the code under test.
 */

import { createHash } from "node:crypto";
import { linkBytes, linkOf, startBytes } from "../src/core/links.ts";
import * as m from "../src/gen/messages.ts";
import { areBytesEqual } from "../src/wire/bytes.ts";
import { printJson } from "../src/wire/json_printing.ts";
import type { Frame } from "../src/wire/server_messages.ts";
import { parseStrict } from "../src/wire/strict_json.ts";
import type { Bytes } from "../src/wire/types.ts";
import type { Link } from "../src/core/links.ts";

export const LINEAGE = `lin_${"0".repeat(25)}1`;
export const TOKEN_TTL_MS = 300_000;

export function topicNumber(number: number): string {
  return `run:run_${String(number).padStart(26, "0")}:events`;
}

export function sha256(bytes: Uint8Array): Bytes {
  return new Uint8Array(createHash("sha256").update(bytes).digest());
}

/** Hash links as src/chain.ts does, without SubtleCrypto: a test's time does not pass on other threads. */
export function sealNow(chain: Bytes, links: readonly Link[]): readonly Bytes[] {
  return links.map((link) => {
    chain = sha256(linkBytes(chain, link, link.payloadSha256 ?? sha256(link.payload!)));
    return chain;
  });
}

/** The history of one topic; a test may change `floorSeq` and `lineage`. */
export class LogModel {
  floorSeq = 1n;
  readonly frames: Frame[] = [];
  readonly chains: Bytes[];

  constructor(
    readonly topic: string,
    public lineage = LINEAGE,
  ) {
    this.chains = [sha256(startBytes(topic))];
  }

  get headSeq(): bigint {
    return BigInt(this.frames.length);
  }

  append(count = 1, payload: Bytes = new Uint8Array([10, 1, 120])): void {
    for (let index = 0; index < count; index += 1) {
      const frame = { topic: this.topic, seq: this.headSeq + 1n, kind: "thought", payload, schemaVersion: 1 };
      this.frames.push(frame);
      this.chains.push(sealNow(this.chains.at(-1)!, [linkOf(frame)])[0]!);
    }
  }

  chainAt(seq: bigint): Bytes {
    return this.chains[Number(seq)]!;
  }
}

export function framesMessage(frames: readonly Frame[]): string {
  const wires = frames.map((frame) => ({
    topic: frame.topic,
    seq: frame.seq,
    kind: frame.kind,
    payload_bytes: frame.payload,
    schema_version: frame.schemaVersion,
  }));
  return printJson({ frames: wires }, m.ServerMessage);
}

export function control(message: Partial<m.ServerMessage>): string {
  return printJson(message, m.ServerMessage);
}

export function errorText(code: string, more: Partial<m.Error> = {}): string {
  const defaults = { code, message: code, topic: "", retryable: false, retry_after_ms: 0 };
  const rest = { advice: "ADVICE_UNSPECIFIED", reason: "REASON_CODE_UNSPECIFIED", docs: "", request_id: "" };
  return control({ error: { ...rest, details: new Map(), ...defaults, ...more } });
}

/** One node's side of one connection. */
export class NodeModel {
  // Send position of each subscription.
  readonly positions = new Map<string, bigint>();
  readonly said: m.ClientMessage[] = [];

  constructor(
    readonly logs: ReadonlyMap<string, LogModel>,
    private readonly nowMs: () => number,
  ) {}

  /** Return the answers to one client message. */
  receive(text: string): string[] {
    const message = parseStrict(text, m.ClientMessage);
    this.said.push(message);
    if (message.hello) return [this.welcome()];
    if (message.subscribe) return message.subscribe.topics.flatMap((asked) => this.subscribe(asked));
    if (message.unsubscribe) {
      return message.unsubscribe.topics.map((topic) => {
        this.positions.delete(topic);
        return control({ unsubscribed: { topic, reason: "UNSUBSCRIBED_REASON_ASKED" } });
      });
    }
    return message.renew ? [control({ renewed: { token_expires_at: BigInt(this.wallMs() + TOKEN_TTL_MS) } })] : [];
  }

  private wallMs(): number {
    return 1_700_000_000_000 + Math.round(this.nowMs());
  }

  private welcome(): string {
    return control({
      welcome: {
        connection_id: "con_1",
        node_id: "nod_1",
        protocol: 1,
        schema: 1,
        heartbeat_interval_ms: 15_000,
        limits: {
          inbound_message_max_bytes: 65_536,
          client_messages_per_s: 100,
          client_messages_burst: 600,
          subscriptions_max: 256,
          topics_per_subscribe_max: 64,
          dead_after_ms: 45_000,
        },
        token_expires_at: BigInt(this.wallMs() + TOKEN_TTL_MS),
        server_time: BigInt(this.wallMs()),
      },
    });
  }

  private subscribe(asked: m.TopicSubscription): string[] {
    const log = this.logs.get(asked.topic);
    if (log === undefined) return [errorText("forbidden", { topic: asked.topic })];
    const start = this.startOf(asked, log);
    if (typeof start === "string") return [start];
    this.positions.set(log.topic, start);
    const isLive = start === log.headSeq;
    const subscribed = control({
      subscribed: {
        topic: log.topic,
        lineage: log.lineage,
        head_seq: log.headSeq,
        floor_seq: log.floorSeq,
        chain_at_start: log.chainAt(start),
        tier: "QOS_TIER_WARM",
        mode: isLive ? "SUBSCRIPTION_MODE_LIVE" : "SUBSCRIPTION_MODE_REPLAYING",
        start_seq: start,
      },
    });
    if (isLive) return [subscribed];
    const through = log.headSeq;
    const complete = { topic: log.topic, through_seq: through, chain: log.chainAt(through) };
    return [subscribed, ...this.publish(), control({ replay_complete: complete })];
  }

  private startOf(asked: m.TopicSubscription, log: LogModel): bigint | string {
    if (asked.from === "SUBSCRIBE_FROM_NOW") return log.headSeq;
    if (asked.from === "SUBSCRIBE_FROM_EARLIEST") return log.floorSeq - 1n;
    const cursor = asked.cursor ?? { seq: 0n, lineage: "", chain: new Uint8Array() };
    const ours = cursor.seq <= log.headSeq ? log.chainAt(cursor.seq) : null;
    const isOther =
      (cursor.seq > 0n && cursor.lineage !== log.lineage) ||
      ours === null ||
      (cursor.chain.length > 0 && !areBytesEqual(ours, cursor.chain));
    if (isOther) return this.stale(log, "STALE_REASON_LINEAGE_MISMATCH");
    return cursor.seq + 1n < log.floorSeq ? this.stale(log, "STALE_REASON_RETENTION_EXPIRED") : cursor.seq;
  }

  /** Return stale_cursor with this log's observation. */
  stale(log: LogModel, reason: string): string {
    const { topic, lineage, headSeq, floorSeq } = log;
    const observed = { head_seq: headSeq, floor_seq: floorSeq, floor_chain: log.chainAt(floorSeq - 1n) };
    return control({ stale_cursor: { topic, reason, lineage, ...observed } });
  }

  /** Return what is new for every subscription, in messages of at most `chunk` frames. */
  publish(chunk = 100): string[] {
    const texts: string[] = [];
    for (const [topic, position] of this.positions) {
      const log = this.logs.get(topic)!;
      for (let at = Number(position); at < log.frames.length; at += chunk) {
        texts.push(framesMessage(log.frames.slice(at, at + chunk)));
      }
      this.positions.set(topic, log.headSeq);
    }
    return texts;
  }

  /** Return a heartbeat about every subscription. */
  heartbeat(): string {
    const topics = [...this.positions.keys()].map((topic) => {
      const log = this.logs.get(topic)!;
      return { topic, head_seq: log.headSeq, chain: log.chainAt(log.headSeq), headroom_frames: 9n, headroom_ms: 9n };
    });
    return control({ heartbeat: { topics, server_time: BigInt(this.wallMs()) } });
  }
}
