/**
 * When to try again: exponential backoff with full jitter, one per retried operation. Pure.
 *
 * Reconnects of many clients must not meet: each delay is drawn uniformly from 0 to the current
 * ceiling. A server's own `retry_after_ms` replaces the draw, since it has already spread its callers.
 * Stability forgives: a connection that lasted STABLE_AFTER_MS starts the sequence anew.
 */

export const FIRST_MS = 250;
export const CEILING_MS = 30_000;
export const STABLE_AFTER_MS = 60_000;
// A server's return time is obeyed up to here. Longer: one wrong number parks a client for days.
// Shorter: we come back while a long maintenance is still running, which costs it one refusal.
export const RETRY_AFTER_MAX_MS = 900_000;

/** Returns a number, 0 <= x < 1. */
export type Random = () => number;

/** Counts failures in a row and says how long to wait before the next attempt. */
export class Backoff {
  failures = 0;
  private beganMs: number | null = null;

  /** Note that the operation works since `nowMs` (a welcome arrived). */
  begin(nowMs: number): void {
    this.beganMs = nowMs;
  }

  /** Note that it stopped working; forgives earlier failures if it was stable until now. */
  end(nowMs: number): void {
    if (this.beganMs !== null && nowMs - this.beganMs >= STABLE_AFTER_MS) this.failures = 0;
    this.beganMs = null;
  }

  /** Return the wait before the next attempt, and count one more failure; `retryAfterMs` 0: none given. */
  nextDelayMs(random: Random, retryAfterMs = 0): number {
    const ceiling = this.ceilingMs();
    this.failures += 1;
    return retryAfterMs > 0 ? Math.min(retryAfterMs, RETRY_AFTER_MAX_MS) : random() * ceiling;
  }

  /** Return the longest wait that the next draw can give: FIRST_MS, doubling to CEILING_MS. */
  ceilingMs(): number {
    return Math.min(CEILING_MS, FIRST_MS * 2 ** Math.min(this.failures, 64));
  }
}
