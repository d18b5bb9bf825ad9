/**
 * The apply rule: what to do with each frame of one topic. Pure.
 *
 * Every client obeys the same scenarios, proto/fixtures/apply-rule.json:
 *
 *     seq <= last_applied        duplicate   discard, change nothing
 *     seq == last_applied + 1    apply       the position moves, the chain grows by one link
 *     seq >  last_applied + 1    gap         resume after last_applied, never apply
 *
 * Hashing is asynchronous in a browser, so the rule only decides; core/follow.ts seals what was accepted,
 * in order, before anybody sees it. Invariants:
 *     INV-A1  the accepted frames are a contiguous run: start + 1, start + 2, ..., seq
 *     INV-A3  offered == applied + duplicates + gaps
 */

import type { Frame } from "../wire/server_messages.ts";

export type Judged = "applied" | "duplicate" | "gap";

/** Exact totals since the rule was made. */
export interface ApplyCounts {
  readonly applied: bigint;
  readonly duplicates: bigint;
  readonly gaps: bigint;
}

/** Holds the last accepted position of one topic and judges each frame against it. */
export class ApplyRule {
  private applied = 0n;
  private duplicates = 0n;
  private gaps = 0n;

  /** Start after `seq`; 0: nothing applied. */
  constructor(
    readonly topic: string,
    public seq: bigint,
  ) {
    if (seq < 0n) throw new RangeError(`not a position: ${topic} seq=${seq}`);
  }

  get counts(): ApplyCounts {
    return { applied: this.applied, duplicates: this.duplicates, gaps: this.gaps };
  }

  /**
   * Judge one frame; only "applied" moves the position.
   *
   * @throws RangeError - a frame of another topic. The caller mixed up its subscriptions.
   */
  offer(frame: Frame): Judged {
    if (frame.topic !== this.topic) throw new RangeError(`frame of ${frame.topic} offered to ${this.topic}`);
    if (frame.seq <= this.seq) {
      this.duplicates += 1n;
      return "duplicate";
    }
    if (frame.seq > this.seq + 1n) {
      this.gaps += 1n;
      return "gap";
    }
    this.seq = frame.seq;
    this.applied += 1n;
    return "applied";
  }
}
