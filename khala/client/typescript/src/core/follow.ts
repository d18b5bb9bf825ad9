/**
 * One followed topic, across all connections: when to ask, what to apply, when it is over. Pure.
 *
 *     state      on this connection                        frames     leaves by
 *     detached   nothing was asked (yet, or any more)      violation  ask -> asked
 *     asked      subscribe sent, its answer is due         ignored    subscribed -> replaying | live
 *     replaying  frames through the head come first        applied    replay_complete -> live
 *     live       every frame as it is committed            applied    -
 *     leaving    unsubscribe sent, its ack is due          ignored    unsubscribed -> detached
 *     ended      stale, forbidden or given up              ignored    -
 * Any state but ended goes to detached when the connection ends; a gap, a pause, another chain and leaving
 * go to leaving. Frames that arrive in asked or leaving belong to the subscription before: dropping them is
 * safe because they lie after our cursor and the next subscription starts there.
 *
 * Hashing is asynchronous in a browser. So an accepted frame waits in the backlog (core/backlog.ts) until its
 * link is computed, and only then it is delivered and the cursor moves; nothing is asked again before the
 * backlog is empty, because the cursor of the next subscribe needs its chain.
 *
 * Invariants:
 *     INV-F1  delivered frames are consecutive over the whole life of the follow, connections included
 *     INV-F2  whenever the node says (seq, chain) for a seq of ours, the chains are equal, or it is ended
 *     INV-F3  only delivered frames move `cursor`; heartbeats and replay_complete never do
 */

import { ChainMismatch, errorFor, Forbidden, type KhalaError, StaleCursor } from "../errors.ts";
import type * as m from "../gen/messages.ts";
import { areBytesEqual } from "../wire/bytes.ts";
import { WireError } from "../wire/errors.ts";
import type {
  ErrorMessage,
  Frame,
  Lagging,
  ReplayComplete,
  StaleCursorMessage,
  Subscribed,
  TopicHeartbeat,
  Unsubscribed,
} from "../wire/server_messages.ts";
import type { Bytes } from "../wire/types.ts";
import { adviseCode } from "./advice.ts";
import { type ApplyCounts, ApplyRule } from "./apply.ts";
import { Backlog } from "./backlog.ts";
import { Backoff, type Random } from "./backoff.ts";
import { type After, checkCursor, type Cursor, subscriptionOf } from "./cursor.ts";
import type { Happening, Live, Replaying } from "./happenings.ts";
import { linkOf } from "./links.ts";
import { RemoteProtocolError } from "./protocol.ts";

// A path that loses frames this often is not worth resuming on; a new connection, after a backoff, is.
export const GAPS_PER_CONNECTION_MAX = 3;

export type FollowState = "detached" | "asked" | "replaying" | "live" | "leaving" | "ended";

/** When a heartbeat came, and what else had come by then. */
export interface HeartbeatMoment {
  readonly nowMs: number;
  /** Messages with frames of any topic that have come so far. */
  readonly framesSeen: number;
  /** Two heartbeats closer together than that were brought together by a slow path. */
  readonly settleMs: number;
  /** After so many messages of other topics it would have been ours. */
  readonly turns: number;
}

/** What heartbeats have shown since we stand at `seq`, below the head. */
interface Behind {
  readonly seq: bigint;
  /** Messages with frames of any topic that had come at the first of them. */
  readonly framesFirst: number;
  /** When the last one came that counts. */
  readonly atMs: number;
  /** And the messages until then. */
  readonly framesSeen: number;
}

/** Follows one topic from `after` until it is left or ended. */
export class TopicFollow {
  state: FollowState = "detached";
  isPaused = false;
  isUnwanted = false;
  retryAtMs: number | null = null;
  private rule: ApplyRule | null = null;
  private backlog: Backlog | null = null;
  private lineage: string;
  private backoff = new Backoff();
  // Of releases: a topic that could not be followed in time is not asked for again at once.
  private readonly releases = new Backoff();
  private gapsHere = 0;
  private isUnsubscribeDue = false;
  // Why it ended, while frames from before the end are still being sealed.
  private ending: KhalaError | null = null;
  // Since a heartbeat showed a head beyond us; null if none has.
  private behind: Behind | null = null;

  /**
   * @param after - Where to begin.
   * @param zeroChain - chain(0) of the topic.
   */
  constructor(
    readonly topic: string,
    private readonly after: After,
    private readonly zeroChain: Bytes,
    private readonly random: Random,
  ) {
    if (typeof after !== "string") {
      if (after.topic !== topic) throw new RangeError(`a cursor of ${after.topic} does not fit ${topic}`);
      checkCursor(after);
    }
    this.lineage = typeof after === "string" ? "" : after.lineage;
  }

  /** Last delivered position; null until a subscription by a word was accepted. */
  get cursor(): Cursor | null {
    if (this.backlog !== null) {
      return { topic: this.topic, seq: this.backlog.seq, lineage: this.lineage, chain: this.backlog.chain };
    }
    return typeof this.after === "string" ? null : this.after;
  }

  /** Exact numbers of frames that were applied, repeated or behind a gap. */
  get counts(): ApplyCounts {
    return this.rule?.counts ?? { applied: 0n, duplicates: 0n, gaps: 0n };
  }

  private get isSealing(): boolean {
    return this.backlog !== null && !this.backlog.isEmpty;
  }

  private get isFlowing(): boolean {
    return this.state === "replaying" || this.state === "live";
  }

  /** True if the node has our subscription, or is about to, and it is wanted. */
  get isAtNode(): boolean {
    return !this.isUnwanted && (this.state === "asked" || this.isFlowing);
  }

  /** True if a subscribe should be sent now. */
  get isAskable(): boolean {
    return (
      this.state === "detached" && !this.isPaused && !this.isUnwanted && this.retryAtMs === null && !this.isSealing
    );
  }

  /** True if nothing will ever come of it again. */
  get isFinished(): boolean {
    if (this.state === "ended") return this.ending === null;
    return this.isUnwanted && this.state === "detached";
  }

  /** Enter `asked` and return what to put into the subscribe. */
  ask(): m.TopicSubscription {
    this.state = "asked";
    return subscriptionOf(this.topic, this.cursor ?? this.after);
  }

  /** Enter `leaving` if there is something to unsubscribe from. */
  leave(): void {
    if (this.isFlowing || this.state === "asked") {
      this.state = "leaving";
      this.isUnsubscribeDue = true;
    }
  }

  /** Return true once after `leaving` was entered: the unsubscribe must be sent now. */
  takeUnsubscribe(): boolean {
    const isDue = this.isUnsubscribeDue;
    this.isUnsubscribeDue = false;
    return isDue;
  }

  /** Take over the unsubscribe of `before`, the follow of the same topic that this one replaces. */
  succeed(before: TopicFollow): void {
    this.state = before.state;
    this.isUnsubscribeDue = before.takeUnsubscribe();
  }

  /** The connection ended: what was asked there is void, the cursor and the backlog are not. */
  detach(): void {
    if (this.state !== "ended") this.state = "detached";
    this.gapsHere = 0;
    this.isUnsubscribeDue = false;
    this.behind = null;
  }

  /** Enter `ended` because of `error`; told after the frames that were accepted before. */
  end(error: KhalaError): readonly Happening[] {
    this.state = "ended";
    if (this.isSealing && !this.isUnwanted) {
      this.ending = error;
      return [];
    }
    return [{ type: "topic_ended", topic: this.topic, error }];
  }

  /** Be over because of `error`, which the node does not know of. */
  refuse(error: KhalaError): readonly Happening[] {
    // It still serves this subscription, so it is unsubscribed first: frames in flight would
    // otherwise belong to a topic that nobody follows.
    this.isUnwanted = true;
    this.ending = null;
    this.backlog?.drop();
    this.leave();
    return [{ type: "topic_ended", topic: this.topic, error }];
  }

  private endMismatch(seq: bigint, lineage: string): readonly Happening[] {
    return this.refuse(new ChainMismatch(this.topic, seq, lineage));
  }

  /** The node accepted: fix lineage and chain, or find that they are not ours. */
  noteSubscribed(message: Subscribed): readonly Happening[] {
    if (this.state === "leaving") return []; // answers what we have meanwhile left
    if (this.state !== "asked") throw violation(`subscribed for ${this.topic} in state ${this.state}`);
    const known = this.cursor;
    if (known !== null && known.seq !== message.startSeq) {
      throw violation(`${this.topic} starts at ${message.startSeq}, not ${known.seq}`);
    }
    const lineageDiffers = known !== null && known.seq > 0n && known.lineage !== message.lineage;
    const chain = message.startSeq === 0n ? this.zeroChain : (known?.chain ?? null);
    if (lineageDiffers || (chain !== null && !areBytesEqual(chain, message.chainAtStart))) {
      return this.endMismatch(message.startSeq, message.lineage);
    }
    this.lineage = message.lineage;
    this.rule ??= new ApplyRule(this.topic, message.startSeq);
    this.backlog ??= new Backlog(this.topic, message.startSeq, message.chainAtStart);
    this.backlog.expectThrough(message.headSeq);
    this.backoff = new Backoff();
    this.behind = null;
    const { seq, chain: sealed } = this.backlog;
    const cursor: Cursor = { topic: this.topic, seq, lineage: this.lineage, chain: sealed };
    const started: Replaying = { type: "replaying", topic: this.topic, cursor, headSeq: message.headSeq };
    this.state = message.isLive ? "live" : "replaying";
    return message.isLive ? [started, this.live(seq, sealed)] : [started];
  }

  private live(seq: bigint, chain: Bytes): Live {
    return { type: "live", topic: this.topic, seq, chain };
  }

  /** Accept what is next, discard what was applied, resume at a gap (then in leaving). */
  noteFrames(frames: readonly Frame[]): readonly Happening[] {
    if (this.state === "asked" || this.state === "leaving" || this.state === "ended") return [];
    if (this.state === "detached" || this.rule === null || this.backlog === null) {
      throw violation(`frames of ${this.topic}, which was not subscribed`);
    }
    for (const frame of frames) {
      if (frame.seq === this.rule.seq + 1n) {
        // Before the rule takes it: an erased frame without its hash must not count as applied.
        this.backlog.put(frame, linkUntrusted(frame));
        this.rule.offer(frame);
      } else if (this.rule.offer(frame) === "gap") {
        return [...this.backlog.takeWork(), ...this.resumeAfterGap(frame.seq)];
      }
    }
    // They arrive faster than they can be hashed, and a browser's socket cannot be told to wait. What the
    // node stops sending now is asked for again when the backlog is empty.
    if (this.backlog.isFull) this.leave();
    return this.backlog.takeWork();
  }

  private resumeAfterGap(seq: bigint): readonly Happening[] {
    this.gapsHere += 1;
    if (this.gapsHere > GAPS_PER_CONNECTION_MAX) {
      throw violation(`${this.topic} lost frames ${this.gapsHere} times`);
    }
    this.leave();
    return [{ type: "gap_seen", topic: this.topic, expectedSeq: this.rule!.seq + 1n, seq }];
  }

  /** Return work that waits to be given out. */
  takeWork(): readonly Happening[] {
    return this.backlog?.takeWork() ?? [];
  }

  /** Take the hashes that `ticket` asked for: frames are delivered, statements of the node compared. */
  noteSealed(ticket: number, chains: readonly Bytes[]): readonly Happening[] {
    const settled = this.backlog?.settle(ticket, chains);
    if (settled === undefined || settled === null || this.backlog === null) return [];
    const happenings: Happening[] = [];
    if (settled.frames.length > 0) {
      const cursor = this.cursor!;
      happenings.push({ type: "delivered", topic: this.topic, cursor, frames: settled.frames });
    }
    happenings.push(...settled.confirmed);
    if (settled.mismatchAt !== null) {
      return [...happenings, ...this.endMismatch(settled.mismatchAt, this.lineage)];
    }
    happenings.push(...this.backlog.takeWork());
    if (this.ending !== null && this.backlog.isEmpty) {
      happenings.push({ type: "topic_ended", topic: this.topic, error: this.ending });
      this.ending = null;
    }
    return happenings;
  }

  /** The hashes cannot be had: nothing more of this topic can be verified. */
  noteSealFailed(ticket: number, error: KhalaError): readonly Happening[] {
    return this.backlog?.settle(ticket, []) == null ? [] : this.refuse(error);
  }

  /** Compare with the authority at the point where replay ends. */
  noteReplayComplete(message: ReplayComplete): readonly Happening[] {
    if (this.state === "asked" || this.state === "leaving" || this.state === "ended") return [];
    if (this.state === "detached" || this.rule === null || this.backlog === null) {
      throw violation(`replay_complete of ${this.topic}, which was not subscribed`);
    }
    if (message.throughSeq > this.rule.seq) return this.resumeAfterGap(message.throughSeq + 1n);
    const wasLive = this.state === "live";
    this.state = "live";
    const confirmed = this.backlog.compare(message.throughSeq, message.chain, !wasLive);
    return confirmed ?? this.endMismatch(message.throughSeq, this.lineage);
  }

  /** Compare at a seq of ours; find a lost tail. Never moves the cursor. */
  noteHeartbeat(message: TopicHeartbeat, moment: HeartbeatMoment): readonly Happening[] {
    if (!this.isFlowing || this.rule === null || this.backlog === null) return [];
    const { headSeq, headroomFrames, headroomMs } = message;
    const seen: Happening = { type: "head_seen", topic: this.topic, headSeq, headroomFrames, headroomMs };
    const confirmed =
      headSeq >= this.backlog.seq && headSeq <= this.rule.seq
        ? this.backlog.compare(headSeq, message.chain, false)
        : [];
    if (confirmed === null) return this.endMismatch(headSeq, this.lineage);
    if (this.state === "live" && headSeq > this.rule.seq) {
      if (this.isTailLost(this.rule.seq, moment)) {
        this.behind = null;
        return [seen, ...this.resumeAfterGap(headSeq + 1n)];
      }
    }
    return [seen, ...confirmed];
  }

  /** Note one more heartbeat beyond `seq`, where we stand; true if what follows there will not come. */
  private isTailLost(seq: bigint, { nowMs, framesSeen, settleMs, turns }: HeartbeatMoment): boolean {
    // The control lane overtakes frames, so one heartbeat beyond our seq says nothing, nor do two that a
    // slow path has brought together, or between frames of other topics. Lost is what did not come although
    // nothing else did, or so much that it was our turn.
    const behind = this.behind;
    if (behind?.seq !== seq) {
      this.behind = { seq, framesFirst: framesSeen, atMs: nowMs, framesSeen };
      return false;
    }
    if (nowMs - behind.atMs < settleMs) return false;
    if (framesSeen === behind.framesSeen || framesSeen - behind.framesFirst >= turns) return true;
    this.behind = { ...behind, atMs: nowMs, framesSeen };
    return false;
  }

  /** The node has more than we take; nothing to do but to know it. */
  noteLagging(message: Lagging): readonly Happening[] {
    const { fromSeq, headSeq } = message;
    return this.isFlowing ? [{ type: "lagged", topic: this.topic, fromSeq, headSeq }] : [];
  }

  /** The ack of ours, or the node's own decision. */
  noteUnsubscribed(message: Unsubscribed, nowMs: number): readonly Happening[] {
    // asked: the subscription before was ended by both sides at once; this is about that one.
    if (this.state === "asked" || this.state === "ended") return [];
    const wasFlowing = this.isFlowing;
    this.state = "detached";
    this.behind = null;
    if (message.reason === "forbidden") return this.end(new Forbidden("forbidden", { topic: this.topic }));
    if (!wasFlowing || message.reason !== "slow_consumer") return [];
    // A minute without a release forgives those before it.
    this.releases.end(nowMs);
    const delayMs = this.releases.nextDelayMs(this.random);
    this.releases.begin(nowMs);
    this.retryAtMs = nowMs + delayMs;
    return [{ type: "released", topic: this.topic, delayMs }];
  }

  /** The cursor is of no use any more, whatever state we were in. */
  noteStale(message: StaleCursorMessage): readonly Happening[] {
    return this.state === "ended" ? [] : this.end(new StaleCursor(this.topic, message.reason, message));
  }

  /** A refused subscribe, or an end for now: ask again later if that can help, else end. */
  noteError(message: ErrorMessage, nowMs: number): readonly Happening[] {
    if (this.state === "ended") return [];
    const advised = adviseCode(message.code);
    if (advised.step !== "resume") return this.end(errorFor(message.code, message));
    const delayMs = this.backoff.nextDelayMs(this.random, message.retryAfterMs);
    this.state = "detached";
    this.retryAtMs = nowMs + delayMs;
    return [{ type: "retrying", topic: this.topic, code: advised.code, delayMs }];
  }

  /** Become askable again when the wait is over. */
  tick(nowMs: number): void {
    if (this.retryAtMs !== null && nowMs >= this.retryAtMs) this.retryAtMs = null;
  }
}

function violation(detail: string): RemoteProtocolError {
  return new RemoteProtocolError("protocol_error", detail);
}

function linkUntrusted(frame: Frame): ReturnType<typeof linkOf> {
  try {
    return linkOf(frame);
  } catch (error) {
    if (error instanceof WireError) throw new RemoteProtocolError(error.code, error.detail);
    throw error;
  }
}
