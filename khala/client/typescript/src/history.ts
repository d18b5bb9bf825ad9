/**
 * History of a run by pages over HTTP, for what is not replayed over the WebSocket any more.
 *
 * An explicit read, not a live lane: it ends at the head that it finds, and the subscription follows from
 * there. Each page is verified: it must continue our chain, and its own frames must be consecutive.
 */

import { sealLinks } from "./chain.ts";
import { ApplyRule } from "./core/apply.ts";
import { Backoff } from "./core/backoff.ts";
import type { Cursor } from "./core/cursor.ts";
import { linkOf } from "./core/links.ts";
import type { Environment } from "./environment.ts";
import { ChainMismatch, StaleCursor, Unavailable } from "./errors.ts";
import { KhalaEvent } from "./events.ts";
import type * as m from "./gen/messages.ts";
import { areBytesEqual } from "./wire/bytes.ts";
import { WireError } from "./wire/errors.ts";
import { frameFromWire } from "./wire/server_messages.ts";
import type { Bytes } from "./wire/types.ts";

// Time without an answer after which the reader gives up; it goes on where it stopped when repeated.
export const PATIENCE_MS = 120_000;

/** Verified events after a position; `cursor` stands after the last of them. */
export interface Page {
  readonly events: readonly KhalaEvent[];
  readonly cursor: Cursor;
  readonly chainBefore: Bytes;
  readonly headSeq: bigint;
  readonly isLast: boolean;
}

/** Reads one page of the log. */
export type ReadPage = (afterSeq: bigint) => Promise<m.ListEventsResponse>;

export class HistoryPages {
  constructor(
    private readonly read: ReadPage,
    private readonly env: Environment,
  ) {}

  /**
   * Return the page after `position`.
   *
   * @throws ChainMismatch - the log has another history at `position`, or the page does not hold.
   * @throws StaleCursor - the lineage changed.
   * @throws Unavailable - no answer for two minutes.
   */
  async readAfter(position: Cursor): Promise<Page> {
    const { topic, seq } = position;
    const page = await this.readInTime(seq);
    const lineage = page.watermark?.lineage ?? "";
    const mismatch = (at: bigint): ChainMismatch => new ChainMismatch(topic, at, lineage);
    if (seq > 0n && lineage !== position.lineage) {
      throw new StaleCursor(topic, "lineage_mismatch", { lineage, headSeq: page.head_seq });
    }
    if (position.chain !== null && !areBytesEqual(position.chain, page.chain_before)) throw mismatch(seq);
    const rule = new ApplyRule(topic, seq);
    const frames = page.events.map((wire, index) => {
      try {
        const frame = frameFromWire(wire, `events[${index}]`);
        if (frame.topic !== topic || rule.offer(frame) !== "applied") throw mismatch(frame.seq);
        return { frame, link: linkOf(frame) };
      } catch (error) {
        throw error instanceof WireError ? mismatch(wire.seq) : error;
      }
    });
    const chains = await sealLinks(
      page.chain_before,
      frames.map(({ link }) => link),
      this.env.digest,
    );
    const chain = chains.at(-1) ?? page.chain_before;
    const stated = page.watermark;
    const isStated = stated?.seq === rule.seq && stated.chain.length > 0;
    if (isStated && !areBytesEqual(stated.chain, chain)) throw mismatch(rule.seq);
    return {
      events: frames.map(({ frame }, index) => KhalaEvent.of({ frame, chain: chains[index]! })),
      cursor: { topic, seq: rule.seq, lineage, chain },
      chainBefore: page.chain_before,
      headSeq: page.head_seq,
      isLast: frames.length === 0 || rule.seq >= page.head_seq,
    };
  }

  private async readInTime(afterSeq: bigint): Promise<m.ListEventsResponse> {
    const backoff = new Backoff();
    const givesUpAtMs = this.env.nowMs() + PATIENCE_MS;
    for (;;) {
      try {
        return await this.read(afterSeq);
      } catch (error) {
        if (!(error instanceof Unavailable)) throw error;
        const delayMs = backoff.nextDelayMs(this.env.random, error.retryAfterMs);
        if (this.env.nowMs() + delayMs > givesUpAtMs) throw error;
        await new Promise<void>((resolve) => this.env.schedule(resolve, delayMs));
      }
    }
  }
}
