/**
 * The hash chain, computed by SubtleCrypto.
 *
 * Payload hashes of a batch are asked for at once and run beside each other; the links follow one after
 * the other, because each needs the one before. Nothing here blocks the page: SubtleCrypto works on
 * threads of its own, and every link gives the event loop a turn.
 *
 * SubtleCrypto exists only in secure contexts (https, or http on localhost). Without it nothing can be
 * verified, and this client does not pretend: it refuses to follow.
 */

import { KhalaError } from "./errors.ts";
import { type Link, linkBytes, startBytes } from "./core/links.ts";
import type { Bytes } from "./wire/types.ts";

// More: a long history holds every one of its hashes in memory and on the browser's threads at once.
const HASHES_AT_ONCE = 256;

/** Returns the SHA-256 of bytes. */
export type Digest = (bytes: Bytes) => Promise<Bytes>;

/** The browser's own digest; throws KhalaError where there is none. */
export async function subtleDigest(bytes: Bytes): Promise<Bytes> {
  const subtle = (globalThis.crypto as Crypto | undefined)?.subtle as SubtleCrypto | undefined;
  if (subtle === undefined) {
    const message = "this page is not a secure context, so nothing can be verified: use https or localhost";
    throw new KhalaError("internal", { message, retryable: false });
  }
  return new Uint8Array(await subtle.digest("SHA-256", bytes));
}

/** Return chain(0) of a topic. */
export function chainStart(topic: string, digest: Digest = subtleDigest): Promise<Bytes> {
  return digest(startBytes(topic));
}

/** Return the chain after each of `links`, which follow `chain` without a hole. */
export async function sealLinks(
  chain: Bytes,
  links: readonly Link[],
  digest: Digest = subtleDigest,
): Promise<readonly Bytes[]> {
  const chains: Bytes[] = [];
  for (let start = 0; start < links.length; start += HASHES_AT_ONCE) {
    const batch = links.slice(start, start + HASHES_AT_ONCE);
    const hashes = await Promise.all(
      batch.map((link) => link.payloadSha256 ?? digest(link.payload ?? new Uint8Array())),
    );
    for (const [index, link] of batch.entries()) {
      chain = await digest(linkBytes(chain, link, hashes[index]!));
      chains.push(chain);
    }
  }
  return chains;
}
