/**
 * Accepted frames of one topic that wait for their hashes, and what the node said about them. Pure.
 *
 * One piece of work is out at a time (SealDue, at most SEAL_BATCH frames); its result moves `seq` and
 * `chain`, which are the topic's cursor. What the node states about a seq that is not sealed yet waits
 * here, and is compared when its seq is reached.
 *
 * Invariants:
 *     frames[i].seq == seq + 1 + i
 *     statements are about seqs in seq + 1 .. seq + frames.length
 *     only a result with the newest ticket changes anything
 *     frames and bytes <= FRAMES_MAX, BYTES_MAX + what was on the wire when the topic was left
 */

import { areBytesEqual } from "../wire/bytes.ts";
import type { Frame } from "../wire/server_messages.ts";
import type { Bytes } from "../wire/types.ts";
import type { Happening, SealedFrame } from "./happenings.ts";
import type { Link } from "./links.ts";

// Hashing 256 frames takes a browser about 10 ms beside the page. More: later deliveries, and more work
// lost when a follow ends. Fewer: more turns of the event loop for the same replay.
export const SEAL_BATCH = 256;
// About a second of hashing. More: memory. Less: leaving the topic in the middle of ordinary replays.
export const FRAMES_MAX = 4_096;
export const BYTES_MAX = 8 * 1024 * 1024;

interface Statement {
  readonly seq: bigint;
  readonly chain: Bytes;
  readonly isReplayEnd: boolean;
}

/** What a finished piece of work came to. */
export interface Settled {
  readonly frames: readonly SealedFrame[];
  readonly confirmed: readonly Happening[];
  /** A seq at which the node's chain is not ours; everything before it is settled. */
  readonly mismatchAt: bigint | null;
}

let lastTicket = 0;

export class Backlog {
  private frames: Frame[] = [];
  private links: Link[] = [];
  private bytes = 0;
  private statements: Statement[] = [];
  private ticket: number | null = null;
  // Position that replay_complete will be about, and our chain there once we have passed it.
  private throughSeq: bigint | null = null;
  private throughChain: Bytes | null = null;

  /** Begin after `seq`, where the topic's chain is `chain`. */
  constructor(
    private readonly topic: string,
    public seq: bigint,
    public chain: Bytes,
  ) {}

  get isEmpty(): boolean {
    return this.frames.length === 0;
  }

  /** True if no more should be put in for now. */
  get isFull(): boolean {
    return this.frames.length >= FRAMES_MAX || this.bytes >= BYTES_MAX;
  }

  /** Remember the chain at `seq` when it is passed: replay_complete may come after later frames. */
  expectThrough(seq: bigint): void {
    this.throughSeq = seq;
    this.throughChain = null;
  }

  /** Add the next frame. */
  put(frame: Frame, link: Link): void {
    this.frames.push(frame);
    this.links.push(link);
    this.bytes += frame.payload.length;
  }

  /** Forget everything that is not sealed. */
  drop(): void {
    this.frames = [];
    this.links = [];
    this.bytes = 0;
    this.statements = [];
    this.ticket = null;
  }

  /** Return the next piece of work, if there is one and none is out. */
  takeWork(): readonly Happening[] {
    if (this.ticket !== null || this.isEmpty) return [];
    this.ticket = lastTicket += 1;
    const links = this.links.slice(0, SEAL_BATCH);
    return [{ type: "seal_due", topic: this.topic, ticket: this.ticket, chain: this.chain, links }];
  }

  /** Take a result; null if it is not the newest work's. */
  settle(ticket: number, chains: readonly Bytes[]): Settled | null {
    if (ticket !== this.ticket) return null;
    this.ticket = null;
    const sealed: SealedFrame[] = [];
    const confirmed: Happening[] = [];
    let mismatchAt: bigint | null = null;
    for (const [index, chain] of chains.entries()) {
      const frame = this.frames[index]!;
      const stated = this.statements.filter((statement) => statement.seq === frame.seq);
      if (stated.some((statement) => !areBytesEqual(statement.chain, chain))) {
        mismatchAt = frame.seq;
        break;
      }
      sealed.push({ frame, chain });
      confirmed.push(...stated.map((statement) => this.confirmation(statement)));
      if (frame.seq === this.throughSeq) this.throughChain = chain;
    }
    this.frames.splice(0, sealed.length);
    this.links.splice(0, sealed.length);
    for (const { frame } of sealed) this.bytes -= frame.payload.length;
    const last = sealed.at(-1);
    if (last !== undefined) {
      this.seq = last.frame.seq;
      this.chain = last.chain;
    }
    this.statements = this.statements.filter((statement) => statement.seq > this.seq);
    return { frames: sealed, confirmed, mismatchAt };
  }

  /**
   * Compare what the node says about `seq`, a position that was accepted.
   *
   * @returns What is confirmed by it now (nothing yet if `seq` is not sealed); null if the chains differ.
   */
  compare(seq: bigint, chain: Bytes, isReplayEnd: boolean): readonly Happening[] | null {
    const statement: Statement = { seq, chain, isReplayEnd };
    if (seq > this.seq) {
      this.statements.push(statement);
      return [];
    }
    const ours = seq === this.seq ? this.chain : seq === this.throughSeq ? this.throughChain : null;
    if (ours === null)
      return isReplayEnd ? [this.confirmation({ ...statement, seq: this.seq, chain: this.chain })] : [];
    return areBytesEqual(ours, chain) ? [this.confirmation(statement)] : null;
  }

  private confirmation(statement: Statement): Happening {
    const { seq, chain, isReplayEnd } = statement;
    return { type: isReplayEnd ? "live" : "verified", topic: this.topic, seq, chain };
  }
}
