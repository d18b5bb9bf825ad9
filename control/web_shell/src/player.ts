// Time travel: which position of a run is shown, and how it moves. Pure: times come in as arguments.
//
// Positions are seqs. Playing follows the times at which events were committed, with long pauses shortened, as a
// recording of a terminal is watched; at `max` the timeline is filled as fast as it can be drawn.

export const SPEEDS = [1, 4, 16, 64, Infinity] as const;
// Waiting is not worth watching beyond this, milliseconds.
export const PAUSE_MAX_MS = 2_000;
const EVENTS_PER_STEP_AT_MAX = 400;

export type Mode = "live" | "paused" | "playing";

export class Player {
  mode: Mode = "live";
  /** Seq that is shown, unless the mode is live. */
  position = 0;
  speed: number = 1;
  #head = 0;
  // Play time of seq i + 1, milliseconds from the first event; never falls.
  #offsets: number[] = [];
  #lastTime = 0;
  #playedMs = 0;
  #steppedAtMs = 0;

  get head(): number {
    return this.#head;
  }

  /** What is shown: a position, or the newest. */
  get shown(): number {
    return this.mode === "live" ? this.#head : this.position;
  }

  reset(): void {
    this.mode = "live";
    this.#head = 0;
    this.setTimes([]);
  }

  extend(head: number): void {
    this.#head = Math.max(this.#head, head);
  }

  /** Replace the times, in milliseconds, of events 1, 2, ...; events beyond follow at once. */
  setTimes(times: readonly number[]): void {
    this.#offsets = [];
    this.#lastTime = times[0] ?? 0;
    for (const time of times) this.addTime(time);
  }

  get timesKnown(): number {
    return this.#offsets.length;
  }

  addTime(time: number): void {
    const before = this.#offsets.at(-1) ?? 0;
    const gap = this.#offsets.length === 0 ? 0 : time - this.#lastTime;
    this.#offsets.push(before + Math.min(Math.max(gap, 0), PAUSE_MAX_MS));
    this.#lastTime = time;
  }

  /** Play time at a position, milliseconds. */
  offsetOf(position: number): number {
    return this.#offsets[Math.min(position, this.#offsets.length) - 1] ?? 0;
  }

  seek(position: number): void {
    this.position = Math.max(0, Math.min(Math.round(position), this.#head));
    this.#playedMs = this.offsetOf(this.position);
    if (this.mode === "live") this.mode = "paused";
  }

  play(nowMs: number): void {
    if (this.mode === "live" || this.position >= this.#head) this.seek(0);
    this.mode = "playing";
    this.#steppedAtMs = nowMs;
  }

  pause(): void {
    if (this.mode === "live") this.seek(this.#head);
    this.mode = "paused";
  }

  goLive(): void {
    this.mode = "live";
  }

  /** Move on; at the newest event playing becomes live. */
  step(nowMs: number): void {
    if (this.mode !== "playing") return;
    const elapsed = Math.max(0, nowMs - this.#steppedAtMs);
    this.#steppedAtMs = nowMs;
    if (this.speed === Infinity) {
      this.position = Math.min(this.#head, this.position + EVENTS_PER_STEP_AT_MAX);
      this.#playedMs = this.offsetOf(this.position);
    } else {
      this.#playedMs += elapsed * this.speed;
      let next = this.position;
      while (next < this.#head && this.#isDue(next + 1)) next += 1;
      this.position = next;
    }
    if (this.position >= this.#head) this.mode = "live";
  }

  #isDue(seq: number): boolean {
    return (this.#offsets[seq - 1] ?? 0) <= this.#playedMs;
  }
}
