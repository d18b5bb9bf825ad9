/**
 * Verification of a kept history by its hash chain: nothing was lost, added, changed or reordered, also
 * after some payloads were erased.
 */

import { chainStart, sealLinks } from "./chain.ts";
import { ERASED_KIND, linkOf } from "./core/links.ts";
import type { KhalaEvent } from "./events.ts";
import { areBytesEqual } from "./wire/bytes.ts";
import { WireError } from "./wire/errors.ts";
import type { Bytes } from "./wire/types.ts";

/** The events continue the known link without a hole; `erased` of `events` lost their payload. */
export interface VerifiedRange {
  readonly isVerified: true;
  readonly seq: bigint;
  readonly chain: Bytes;
  readonly events: number;
  readonly erased: number;
}
/** The history does not hold at `seq`. */
export interface Broken {
  readonly isVerified: false;
  readonly seq: bigint;
  readonly reason: string;
}

/**
 * Check that `events` follow a known link, and end in `expectedChain` if that is given.
 *
 * @param known - Position and chain before the first event; null: the topic's beginning.
 */
export async function verifyEvents(
  topic: string,
  events: readonly KhalaEvent[],
  known: { readonly seq: bigint; readonly chain: Bytes } | null = null,
  expectedChain: Bytes | null = null,
): Promise<VerifiedRange | Broken> {
  const { seq: afterSeq, chain: start } = known ?? { seq: 0n, chain: await chainStart(topic) };
  const broken = (seq: bigint, reason: string): Broken => ({ isVerified: false, seq, reason });
  const links = [];
  for (const [index, event] of events.entries()) {
    const expected = afterSeq + BigInt(index) + 1n;
    if (event.topic !== topic) return broken(event.seq, `belongs to ${event.topic}`);
    if (event.seq !== expected) return broken(event.seq, `expected seq ${expected}`);
    try {
      links.push(linkOf(event));
    } catch (error) {
      if (error instanceof WireError) return broken(event.seq, error.detail);
      throw error;
    }
  }
  const chains = await sealLinks(start, links);
  for (const [index, event] of events.entries()) {
    if (!areBytesEqual(event.chain, chains[index]!)) return broken(event.seq, "another chain than its own");
  }
  const chain = chains.at(-1) ?? start;
  const seq = afterSeq + BigInt(events.length);
  if (expectedChain !== null && !areBytesEqual(chain, expectedChain)) {
    return broken(seq, "another chain than the authority's");
  }
  const erased = events.filter((event) => event.kind === ERASED_KIND).length;
  return { isVerified: true, seq, chain, events: events.length, erased };
}
