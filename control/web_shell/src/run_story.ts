// What is known of the run that is looked at: its events, how far they are proven, and what an outage has cost.
//
// Takes events and notices in the order in which the client library gives them, and counts for itself: whether
// frames were lost is judged here by their seqs, and not taken from whoever delivered them. Pure: time comes in.

import type { KhalaEvent } from "../../../khala/client/typescript/src/events.ts";
import type { Notice as StreamNotice } from "../../../khala/client/typescript/src/notices.ts";
import type { Outage } from "./notice.ts";
import { type RunEvent, Timeline } from "./timeline.ts";

/** Where the stream of this run stands. */
export type StoryPhase = "opening" | "replaying" | "reading" | "live" | "offline" | "ended";

export class RunStory {
  readonly id: string;
  readonly topic: string;
  readonly events: RunEvent[] = [];
  readonly timeline = new Timeline();
  phase: StoryPhase = "opening";
  /** Why it ended; null if it has not. */
  error: Error | null = null;
  /** Why there is no connection, by the registry; and when the next attempt comes, milliseconds. */
  offlineCode = "";
  retryAtMs = 0;
  verifiedSeq = 0;
  headSeq = 0;
  erased = 0;
  isLagging = false;
  isStored = true;
  /** The last outage that is over; null: there was none, or it has been read. */
  outage: Outage | null = null;
  #lost = 0;
  #away: { readonly sinceMs: number; readonly seq: number; readonly lost: number } | null = null;
  // Position through which everything must have been taken before this is live; null: not told yet.
  #liveSeq: number | null = null;

  constructor(id: string) {
    this.id = id;
    this.topic = `run:${id}:events`;
  }

  /** Newest event that was applied. */
  get seq(): number {
    return this.timeline.lastSeq;
  }

  /** Seq of the oldest event that is held. */
  get firstSeq(): number {
    return this.events[0]?.seq ?? 1;
  }

  /** Take the next event; a hole before it is counted as lost, one that is there already is not taken. */
  apply(event: KhalaEvent, nowMs: number): void {
    const seq = Number(event.seq);
    if (seq <= this.seq) return;
    if (this.events.length > 0) this.#lost += seq - this.seq - 1;
    if (event.isErased) this.erased += 1;
    const taken: RunEvent = { seq, kind: event.kind, data: event.data };
    this.events.push(taken);
    this.timeline.apply(taken);
    this.headSeq = Math.max(this.headSeq, seq);
    this.#judgeLive(nowMs);
  }

  note(notice: StreamNotice, nowMs: number): void {
    switch (notice.type) {
      case "connecting":
        // Still offline: what is said about it stays, and does not come and go with each attempt.
        this.retryAtMs = nowMs;
        break;
      case "connected":
        if (this.phase === "offline") this.phase = "opening";
        break;
      case "disconnected":
        this.#away ??= { sinceMs: nowMs, seq: this.seq, lost: this.#lost };
        this.#liveSeq = null;
        this.phase = "offline";
        this.offlineCode = notice.code;
        this.retryAtMs = nowMs + notice.retryInMs;
        break;
      case "history_read":
        this.phase = "reading";
        this.headSeq = Math.max(this.headSeq, Number(notice.headSeq));
        break;
      case "replaying":
        this.#liveSeq = null;
        this.phase = "replaying";
        this.headSeq = Math.max(this.headSeq, Number(notice.headSeq));
        break;
      case "live":
        this.#liveSeq = Number(notice.seq);
        this.verifiedSeq = Math.max(this.verifiedSeq, this.#liveSeq);
        this.#judgeLive(nowMs);
        break;
      case "verified":
        this.verifiedSeq = Math.max(this.verifiedSeq, Number(notice.seq));
        break;
      case "head_seen":
        this.headSeq = Math.max(this.headSeq, Number(notice.headSeq));
        this.isLagging = false;
        break;
      case "lagged":
        this.isLagging = true;
        break;
      case "store_degraded":
        this.isStored = false;
        break;
      case "gap_seen":
      case "released":
      case "retrying":
        this.phase = "replaying";
    }
  }

  end(error: Error): void {
    this.phase = "ended";
    this.error = error;
  }

  /** Return the timeline as it was when `seq` was the newest event. */
  timelineAt(seq: number): Timeline {
    const past = new Timeline();
    this.extendTo(past, seq);
    return past;
  }

  /** Add to a timeline of the past what came after it, up to `seq`. */
  extendTo(past: Timeline, seq: number): void {
    for (let index = Math.max(0, past.lastSeq + 1 - this.firstSeq); index < this.events.length; index += 1) {
      const event = this.events[index];
      if (event === undefined || event.seq > seq) break;
      past.apply(event);
    }
  }

  /** Live is where everything up to the head was applied; the news of it may come before the events do. */
  #judgeLive(nowMs: number): void {
    if (this.#liveSeq === null || this.seq < this.#liveSeq) return;
    this.#liveSeq = null;
    this.phase = "live";
    this.isLagging = false;
    const away = this.#away;
    if (away === null) return;
    this.#away = null;
    const lost = this.#lost - away.lost;
    this.outage = {
      seconds: (nowMs - away.sinceMs) / 1000,
      received: this.seq - away.seq - lost,
      lost,
      verifiedSeq: this.verifiedSeq,
    };
  }
}
