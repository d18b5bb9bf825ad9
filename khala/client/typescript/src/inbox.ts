/**
 * What waits for one follower: events in order, with a bound on them.
 *
 * The link puts without waiting, and a browser's socket cannot be told to wait. A follower that is slower
 * than its topic fills the inbox, which then asks the node to stop (pause) and to go on (resume) when half
 * of it was taken. So memory stays bounded, other topics of the same connection are not held up, and
 * nothing is lost: what the node stopped sending is sent after the cursor later.
 *
 * Invariant: waiting events and bytes <= EVENTS_MAX, BYTES_MAX + what was on the wire when the pause was
 * asked.
 */

import type { Cursor } from "./core/cursor.ts";
import { KhalaEvent } from "./events.ts";
import type { SealedFrame } from "./core/happenings.ts";

// About a second of the fastest replay. More: memory. Less: pausing in the middle of ordinary bursts.
export const EVENTS_MAX = 4_096;
export const BYTES_MAX = 8 * 1024 * 1024;

/** Everything after `started` follows its cursor; nothing follows `ended`. */
export type InboxItem =
  | { readonly type: "event"; readonly event: KhalaEvent }
  | { readonly type: "started"; readonly cursor: Cursor }
  | { readonly type: "ended"; readonly error: Error };

export class Inbox {
  private items: InboxItem[] = [];
  private taken = 0;
  private events = 0;
  private bytes = 0;
  private isPaused = false;
  private arrived = (): void => {};

  constructor(
    private readonly pause: () => void,
    private readonly resume: () => void,
  ) {}

  putFrames(frames: readonly SealedFrame[]): void {
    this.putEvents(frames.map((sealed) => KhalaEvent.of(sealed)));
    if (!this.isPaused && (this.events >= EVENTS_MAX || this.bytes >= BYTES_MAX)) {
      this.isPaused = true;
      this.pause();
    }
  }

  /** Add events, also a page of history (which was asked for because the inbox is empty). */
  putEvents(events: readonly KhalaEvent[]): void {
    for (const event of events) {
      this.events += 1;
      this.bytes += event.payload.length;
      this.items.push({ type: "event", event });
    }
    this.arrived();
  }

  put(item: InboxItem): void {
    // Of two starts with nothing in between the later counts: reconnects alone must not fill memory.
    const last = this.items.at(-1);
    if (item.type === "started" && last?.type === "started") this.items[this.items.length - 1] = item;
    else this.items.push(item);
    this.arrived();
  }

  /** Return the next item; null if there is none now. */
  take(): InboxItem | null {
    const item = this.items[this.taken];
    if (item === undefined) return null;
    this.taken += 1;
    // Shifting an array of thousands for each event would cost more than the event.
    if (this.taken >= 1024 || this.taken === this.items.length) {
      this.items = this.items.slice(this.taken);
      this.taken = 0;
    }
    if (item.type === "event") {
      this.events -= 1;
      this.bytes -= item.event.payload.length;
      if (this.isPaused && this.events <= EVENTS_MAX / 2 && this.bytes <= BYTES_MAX / 2) {
        this.isPaused = false;
        this.resume();
      }
    }
    return item;
  }

  /** Resolve when there is something to take, or `interrupt` was called. */
  async wait(): Promise<void> {
    if (this.taken < this.items.length) return;
    await new Promise<void>((resolve) => (this.arrived = resolve));
  }

  /** Let a waiting `wait` return. */
  interrupt(): void {
    this.arrived();
  }
}
