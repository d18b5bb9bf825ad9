/**
 * A followed topic as an asynchronous iterator of events.
 *
 *     for await (const event of khala.subscribe(topic, { after: "saved" })) { ... }
 *
 * Every event of the topic comes in order and is applied to the store once per (topic, seq). An event
 * counts as processed when the next one is asked for; processed events and their cursor are committed
 * together, before the iterator waits for the network and at least every COMMIT_EVENTS_MAX. So after a
 * reload the loop may see the last few again, it never misses one. Leaving the loop does not count the
 * event given last, because `break` and an exception look the same from here.
 */

import { callPage } from "./callbacks.ts";
import type { ApplyCounts } from "./core/apply.ts";
import type { After, Cursor } from "./core/cursor.ts";
import type { TopicHappening } from "./core/happenings.ts";
import { StaleCursor } from "./errors.ts";
import type { KhalaEvent } from "./events.ts";
import type { HistoryPages } from "./history.ts";
import { Inbox } from "./inbox.ts";
import type { Sink, SyncLink } from "./link.ts";
import type { LinkNotice, Notice, Status } from "./notices.ts";
import type { Store } from "./store/store.ts";
import type { Bytes } from "./wire/types.ts";

// A commit costs a transaction (milliseconds in a browser); an event that is not committed is repeated
// after a reload. More: more repeats. Fewer: a replay spends its time in the store.
export const COMMIT_EVENTS_MAX = 256;
const SAVED_PAGE_EVENTS = 500;
// Reasons for which the event log, which is never pruned, still has what is not replayed.
const READABLE: ReadonlySet<string> = new Set(["replay_budget_exceeded", "retention_expired", "compaction_boundary"]);

/** What a subscription is made of; resolved before the first event. */
export interface Start {
  readonly after: After;
  /** True if `after` is where the store stands. */
  readonly isStored: boolean;
  readonly zeroChain: Bytes;
}

export interface SubscriptionParts {
  readonly topic: string;
  readonly link: SyncLink;
  readonly store: Store;
  readonly start: () => Promise<Start>;
  readonly pages: HistoryPages | null;
  /** Give what the store kept before what follows it. */
  readonly withSaved: boolean;
  readonly onStatus: ((status: Status) => void) | null;
  readonly onNotice: ((notice: Notice) => void) | null;
  readonly onClose: () => void;
}

/** Made by Khala.subscribe; for one loop at a time. */
export class Subscription implements AsyncIterableIterator<KhalaEvent>, Sink {
  readonly topic: string;
  private readonly inbox: Inbox;
  private opened: Promise<void> | null = null;
  private position: Cursor | null = null;
  private after: After = "beginning";
  private zeroChain: Bytes | null = null;
  private isBegun = false;
  private beginAt: Cursor | null = null;
  private given: KhalaEvent | null = null;
  private processed: KhalaEvent[] = [];
  private savedThroughSeq: bigint | null = null;
  private isReadingSaved = false;
  private error: Error | null = null;
  private isReadingPages = false;
  private isClosed = false;
  private lastCounts: ApplyCounts = { applied: 0n, duplicates: 0n, gaps: 0n };
  private current: Status = { state: "connecting" };

  constructor(private readonly parts: SubscriptionParts) {
    this.topic = parts.topic;
    const { link, topic } = parts;
    this.inbox = new Inbox(
      () => link.pause(topic),
      () => link.resume(topic),
    );
  }

  /** Where the subscription is now; changes are told to `onStatus`. */
  get status(): Status {
    return this.current;
  }

  /** Position after the event that was given last; null before the topic has answered. */
  get cursor(): Cursor | null {
    return this.position;
  }

  /** Exact numbers of frames that were applied, repeated or behind a gap, since the start. */
  get counts(): ApplyCounts {
    this.lastCounts = this.parts.link.countsOf(this.topic) ?? this.lastCounts;
    return this.lastCounts;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /**
   * Return the next event.
   *
   * @throws StaleCursor, ReauthRequired, UpgradeRequired, Forbidden, KhalaError - it is over.
   * @throws StoreConflict - another follower began this topic anew in the same store.
   */
  async next(): Promise<IteratorResult<KhalaEvent, undefined>> {
    try {
      const event = await this.nextEvent();
      return event === null ? { done: true, value: undefined } : { done: false, value: event };
    } catch (error) {
      this.leave(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
  }

  /** Called by the language when a loop is left. */
  async return(): Promise<IteratorResult<KhalaEvent, undefined>> {
    await this.close();
    return { done: true, value: undefined };
  }

  /** Stop following, and keep what was processed. */
  async close(): Promise<void> {
    if (this.isClosed) return;
    this.leave(null);
    await this.commit();
  }

  private leave(error: Error | null): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.lastCounts = this.counts;
    this.parts.link.leave(this.topic, this);
    this.parts.onClose();
    this.setStatus({ state: "ended", error });
    this.inbox.interrupt();
  }

  private async nextEvent(): Promise<KhalaEvent | null> {
    if (this.given !== null) this.processed.push(this.given);
    this.given = null;
    if (this.isClosed) return null;
    this.opened ??= this.open();
    await this.opened;
    if (this.processed.length >= COMMIT_EVENTS_MAX) await this.commit();
    while (!this.isClosed) {
      if (this.beginAt !== null) await this.begin(this.beginAt);
      const item = this.inbox.take();
      switch (item?.type) {
        case "event":
          return this.give(item.event);
        case "started":
          this.noteStart(item.cursor);
          break;
        case "ended":
          this.error = item.error;
          break;
        case undefined:
          await this.commit();
          if (!this.isClosed) await this.waitForMore();
      }
    }
    return null;
  }

  private async open(): Promise<void> {
    const start = await this.parts.start();
    this.after = start.after;
    this.zeroChain = start.zeroChain;
    this.isBegun = start.isStored;
    this.position = typeof start.after === "string" ? null : start.after;
    if (this.isClosed) return;
    if (this.parts.withSaved && start.isStored) {
      this.savedThroughSeq = 0n;
      this.isReadingSaved = true;
    } else this.follow(start.after);
  }

  private follow(after: After): void {
    this.parts.link.follow(this.topic, after, this.zeroChain!, this);
  }

  private give(event: KhalaEvent): KhalaEvent {
    if (this.savedThroughSeq !== null && event.seq <= this.savedThroughSeq) return event;
    this.given = event;
    this.position = { ...this.position!, seq: event.seq, chain: event.chain };
    return event;
  }

  private noteStart(cursor: Cursor): void {
    const position = this.position;
    // A later start (after a reconnect) stands where the inbox ends, not where we are.
    const isLater = position !== null && position.seq > 0n && position.chain !== null;
    const here = isLater ? position : cursor;
    // At seq 0 the lineage may be another one by now: nothing was applied that would contradict it.
    const hasMoved = position === null || position.lineage !== here.lineage;
    if (!this.isBegun || hasMoved) this.beginAt = here;
    this.position = here;
  }

  private async waitForMore(): Promise<void> {
    if (this.isReadingSaved && this.position !== null) {
      await this.readSaved(this.position);
    } else if (this.isReadingPages) {
      await this.readPage();
    } else if (this.error === null) {
      await this.inbox.wait();
    } else if (!this.turnToPages(this.error)) {
      throw this.error;
    }
  }

  private async readSaved(cursor: Cursor): Promise<void> {
    const page = await this.parts.store.readEvents(this.topic, this.savedThroughSeq!, SAVED_PAGE_EVENTS);
    const wanted = page.filter((event) => event.seq <= cursor.seq);
    this.inbox.putEvents(wanted);
    this.savedThroughSeq = wanted.at(-1)?.seq ?? cursor.seq;
    if (this.savedThroughSeq < cursor.seq) return;
    this.isReadingSaved = false;
    this.follow(cursor);
  }

  /** Read on by pages if that is wanted and can help; the error is settled then. */
  private turnToPages(error: Error): boolean {
    if (this.parts.pages === null || !(error instanceof StaleCursor) || !READABLE.has(error.reason)) return false;
    const { lineage } = error;
    if (this.position === null) {
      const atFloor = this.after === "earliest";
      const seq = atFloor ? error.floorSeq - 1n : 0n;
      this.position = { topic: this.topic, seq, lineage, chain: atFloor ? error.floorChain : this.zeroChain };
    } else if (this.position.seq > 0n && this.position.lineage !== lineage) {
      return false;
    } else {
      this.position = { ...this.position, lineage };
    }
    if (!this.isBegun) this.beginAt = this.position;
    this.error = null;
    this.isReadingPages = true;
    this.setStatus({ state: "replaying", headSeq: error.headSeq });
    return true;
  }

  private async readPage(): Promise<void> {
    const page = await this.parts.pages!.readAfter(this.position!);
    this.position = { ...this.position!, lineage: page.cursor.lineage, chain: page.chainBefore };
    this.inbox.putEvents(page.events);
    const { headSeq } = page;
    this.tell({ type: "history_read", topic: this.topic, throughSeq: page.cursor.seq, headSeq });
    if (!page.isLast) return;
    this.isReadingPages = false;
    this.follow(page.cursor);
  }

  private async begin(cursor: Cursor): Promise<void> {
    await this.parts.store.begin(cursor);
    this.isBegun = true;
    this.beginAt = null;
  }

  private async commit(): Promise<void> {
    const events = this.processed;
    if (events.length === 0) return;
    this.processed = [];
    try {
      await this.parts.store.commit(events, this.position!.lineage);
    } catch (error) {
      this.processed = [...events, ...this.processed];
      throw error;
    }
  }

  // -- Sink ------------------------------------------------------------------------------------------

  putHappening(happening: TopicHappening): void {
    switch (happening.type) {
      case "delivered":
        return this.inbox.putFrames(happening.frames);
      case "topic_ended":
        return this.inbox.put({ type: "ended", error: happening.error });
      case "replaying":
        this.inbox.put({ type: "started", cursor: happening.cursor });
        this.setStatus({ state: "replaying", headSeq: happening.headSeq });
        break;
      case "live":
        this.setStatus({ state: "live" });
    }
    this.tell(happening);
  }

  putNotice(notice: LinkNotice): void {
    if (notice.type === "disconnected") {
      this.setStatus({ state: "offline", code: notice.code, retryInMs: notice.retryInMs });
    }
    this.tell(notice);
  }

  private setStatus(status: Status): void {
    if (this.current.state === "ended") return;
    this.current = status;
    callPage(this.parts.onStatus, status);
  }

  private tell(notice: Notice): void {
    callPage(this.parts.onNotice, notice);
  }
}
