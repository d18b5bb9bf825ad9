/**
 * What a node says, from `khala.v1.json` to checked values. Pure.
 *
 * The strict mapping refuses what it does not know; an unknown reason code is kept by name and treated
 * as `internal`, not retryable. What breaks an invariant of the wire is refused.
 */

import type { Advice } from "../gen/reason_codes.ts";
import * as m from "../gen/messages.ts";
import { reasonCode } from "../core/reason_codes.ts";
import { encodeUtf8 } from "./bytes.ts";
import { WireError } from "./errors.ts";
import { parseStrict } from "./strict_json.ts";
import type { Bytes } from "./types.ts";

export const CHAIN_BYTES = 32;
const KIND_MAX_BYTES = 64;

/** One unit of a topic on the wire. */
export interface Frame {
  readonly topic: string;
  readonly seq: bigint;
  readonly kind: string;
  readonly payload: Bytes;
  readonly schemaVersion: number;
}

export type StaleReason = "retention_expired" | "compaction_boundary" | "replay_budget_exceeded" | "lineage_mismatch";

export interface Welcome {
  readonly type: "welcome";
  readonly connectionId: string;
  readonly nodeId: string;
  readonly protocol: number;
  readonly heartbeatIntervalMs: number;
  readonly topicsPerSubscribeMax: number;
  readonly deadAfterMs: number;
  readonly tokenExpiresAtMs: number;
  readonly serverTimeMs: number;
}
export interface Subscribed {
  readonly type: "subscribed";
  readonly topic: string;
  readonly lineage: string;
  readonly headSeq: bigint;
  readonly floorSeq: bigint;
  readonly chainAtStart: Bytes;
  readonly isLive: boolean;
  readonly startSeq: bigint;
}
export interface ReplayComplete {
  readonly type: "replay_complete";
  readonly topic: string;
  readonly throughSeq: bigint;
  readonly chain: Bytes;
}
export interface Unsubscribed {
  readonly type: "unsubscribed";
  readonly topic: string;
  readonly reason: "asked" | "slow_consumer" | "forbidden";
}
export interface TopicHeartbeat {
  readonly topic: string;
  readonly headSeq: bigint;
  readonly chain: Bytes;
  readonly headroomFrames: bigint;
  readonly headroomMs: bigint;
}
export interface ServerHeartbeat {
  readonly type: "heartbeat";
  readonly topics: readonly TopicHeartbeat[];
  readonly serverTimeMs: number;
}
export interface Lagging {
  readonly type: "lagging";
  readonly topic: string;
  readonly fromSeq: bigint;
  readonly headSeq: bigint;
}
export interface StaleCursorMessage {
  readonly type: "stale_cursor";
  readonly topic: string;
  readonly reason: StaleReason;
  readonly lineage: string;
  readonly headSeq: bigint;
  readonly floorSeq: bigint;
  readonly floorChain: Bytes;
}
export interface Renewed {
  readonly type: "renewed";
  readonly tokenExpiresAtMs: number;
}
/** One refusal; `topic` is empty if it concerns the whole connection or request. */
export interface ErrorMessage {
  readonly type: "error";
  readonly code: string;
  readonly message: string;
  readonly topic: string;
  readonly retryable: boolean;
  readonly advice: Advice;
  readonly retryAfterMs: number;
  readonly docs: string;
  readonly details: Readonly<Record<string, string>>;
  readonly requestId: string;
}
export interface GoAway {
  readonly type: "go_away";
  readonly reconnectAfterMs: number;
  readonly deadlineMs: number;
}
/** Frames of one topic, ascending by one; never empty. */
export interface FramesMessage {
  readonly type: "frames";
  readonly frames: readonly Frame[];
}
export type ServerMessage =
  | FramesMessage
  | Welcome
  | Subscribed
  | ReplayComplete
  | Unsubscribed
  | ServerHeartbeat
  | Lagging
  | StaleCursorMessage
  | Renewed
  | ErrorMessage
  | GoAway;

/**
 * Return the message in this text; null if it says nothing at all.
 *
 * @throws WireError - malformed_message, with the field at fault.
 */
export function decodeServerMessageUntrusted(text: string | Uint8Array): ServerMessage | null {
  return fromWire(parseStrict(text, m.ServerMessage));
}

/** Return a frame of the wire as a value. */
export function frameFromWire(wire: m.KhalaFrame, field: string): Frame {
  const { topic, seq, kind, payload_bytes, schema_version } = wire;
  if (encodeUtf8(kind).length > KIND_MAX_BYTES) throw new WireError(`at most ${KIND_MAX_BYTES} bytes`, `${field}.kind`);
  if (schema_version < 1) throw new WireError("at least 1", `${field}.schema_version`);
  return {
    topic: nonEmpty(topic, `${field}.topic`),
    seq: position(seq, `${field}.seq`, 1n),
    kind: nonEmpty(kind, `${field}.kind`),
    payload: payload_bytes,
    schemaVersion: schema_version,
  };
}

/** Return an error of the wire as a value; a code of the future is internal, not retryable. */
export function errorFromWire(wire: m.Error): ErrorMessage {
  const row = reasonCode(wire.code);
  return {
    type: "error",
    code: wire.code || "internal",
    message: wire.message,
    topic: wire.topic,
    retryable: row !== undefined && wire.retryable,
    advice: row?.advice ?? "give_up",
    retryAfterMs: wire.retry_after_ms,
    docs: wire.docs,
    details: Object.fromEntries(wire.details),
    requestId: wire.request_id,
  };
}

function chain(value: Bytes, field: string): Bytes {
  if (value.length !== CHAIN_BYTES) throw new WireError(`${CHAIN_BYTES} bytes`, field);
  return value;
}

function position(value: bigint, field: string, least = 0n): bigint {
  if (value < least) throw new WireError(`at least ${least}`, field);
  return value;
}

function nonEmpty(value: string, field: string): string {
  if (value === "") throw new WireError("not empty", field);
  return value;
}

/** Return an enum's value as its word; 0 and unknown numbers are refused. */
function word(name: string | number, prefix: string, field: string): string {
  if (typeof name !== "string" || name === `${prefix}UNSPECIFIED`) throw new WireError("a known value", field);
  return name.slice(prefix.length).toLowerCase();
}

function checkFrames(wires: readonly m.KhalaFrame[]): readonly Frame[] {
  const frames = wires.map((wire, index) => frameFromWire(wire, `frames[${index}]`));
  frames.forEach((frame, index) => {
    const before = frames[index - 1];
    if (before === undefined) return;
    if (frame.topic !== before.topic) throw new WireError("frames of one topic", `frames[${index}].topic`);
    if (frame.seq !== before.seq + 1n) throw new WireError("ascending by one", `frames[${index}].seq`);
  });
  return frames;
}

function fromWire(wire: m.ServerMessage): ServerMessage | null {
  const control = readControl(wire);
  if (control !== null && wire.frames.length > 0) {
    throw new WireError("frames or one control message, never both", "frames");
  }
  if (control !== null) return control;
  return wire.frames.length > 0 ? { type: "frames", frames: checkFrames(wire.frames) } : null;
}

function readControl(wire: m.ServerMessage): ServerMessage | null {
  if (wire.welcome) return readWelcome(wire.welcome);
  if (wire.subscribed) return readSubscribed(wire.subscribed);
  if (wire.replay_complete) {
    const { topic, through_seq, chain: sealed } = wire.replay_complete;
    return {
      type: "replay_complete",
      topic: nonEmpty(topic, "replay_complete.topic"),
      throughSeq: position(through_seq, "replay_complete.through_seq"),
      chain: chain(sealed, "replay_complete.chain"),
    };
  }
  if (wire.unsubscribed) {
    const { topic, reason } = wire.unsubscribed;
    return {
      type: "unsubscribed",
      topic: nonEmpty(topic, "unsubscribed.topic"),
      reason: word(reason, "UNSUBSCRIBED_REASON_", "unsubscribed.reason") as Unsubscribed["reason"],
    };
  }
  if (wire.heartbeat) return readHeartbeat(wire.heartbeat);
  if (wire.lagging) {
    const { topic, from_seq, head_seq } = wire.lagging;
    return {
      type: "lagging",
      topic: nonEmpty(topic, "lagging.topic"),
      fromSeq: position(from_seq, "lagging.from_seq"),
      headSeq: position(head_seq, "lagging.head_seq"),
    };
  }
  if (wire.stale_cursor) return readStaleCursor(wire.stale_cursor);
  if (wire.renewed) return { type: "renewed", tokenExpiresAtMs: Number(wire.renewed.token_expires_at) };
  if (wire.error) return errorFromWire(wire.error);
  if (wire.go_away) {
    const { reconnect_after_ms, deadline_ms } = wire.go_away;
    return { type: "go_away", reconnectAfterMs: reconnect_after_ms, deadlineMs: deadline_ms };
  }
  return null;
}

function readWelcome(wire: m.Welcome): Welcome {
  return {
    type: "welcome",
    connectionId: wire.connection_id,
    nodeId: wire.node_id,
    protocol: wire.protocol,
    heartbeatIntervalMs: wire.heartbeat_interval_ms,
    topicsPerSubscribeMax: wire.limits?.topics_per_subscribe_max ?? 0,
    deadAfterMs: wire.limits?.dead_after_ms ?? 0,
    tokenExpiresAtMs: Number(wire.token_expires_at),
    serverTimeMs: Number(wire.server_time),
  };
}

function readSubscribed(wire: m.Subscribed): Subscribed {
  word(wire.tier, "QOS_TIER_", "subscribed.tier");
  return {
    type: "subscribed",
    topic: nonEmpty(wire.topic, "subscribed.topic"),
    lineage: wire.lineage,
    headSeq: position(wire.head_seq, "subscribed.head_seq"),
    floorSeq: position(wire.floor_seq, "subscribed.floor_seq", 1n),
    chainAtStart: chain(wire.chain_at_start, "subscribed.chain_at_start"),
    isLive: word(wire.mode, "SUBSCRIPTION_MODE_", "subscribed.mode") === "live",
    startSeq: position(wire.start_seq, "subscribed.start_seq"),
  };
}

function readHeartbeat(wire: m.ServerHeartbeat): ServerHeartbeat {
  return {
    type: "heartbeat",
    topics: wire.topics.map((topic, index) => ({
      topic: nonEmpty(topic.topic, `heartbeat.topics[${index}].topic`),
      headSeq: position(topic.head_seq, `heartbeat.topics[${index}].head_seq`),
      chain: chain(topic.chain, `heartbeat.topics[${index}].chain`),
      headroomFrames: topic.headroom_frames,
      headroomMs: topic.headroom_ms,
    })),
    serverTimeMs: Number(wire.server_time),
  };
}

function readStaleCursor(wire: m.StaleCursor): StaleCursorMessage {
  return {
    type: "stale_cursor",
    topic: nonEmpty(wire.topic, "stale_cursor.topic"),
    reason: word(wire.reason, "STALE_REASON_", "stale_cursor.reason") as StaleReason,
    lineage: wire.lineage,
    headSeq: position(wire.head_seq, "stale_cursor.head_seq"),
    floorSeq: position(wire.floor_seq, "stale_cursor.floor_seq", 1n),
    floorChain: chain(wire.floor_chain, "stale_cursor.floor_chain"),
  };
}
