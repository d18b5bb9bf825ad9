/**
 * What of a frame enters the chain. Pure: this module builds the bytes, src/chain.ts hashes them.
 *
 *     chain(0) = SHA-256("khala.chain.v1" || 0x00 || topic)
 *     chain(n) = SHA-256(chain(n-1) || u64be(seq) || u32be(schema_version)
 *                        || u32be(len kind) || kind || SHA-256(payload_bytes))
 *
 * An erased frame enters with the kind, schema version and payload hash that its own payload names.
 * Golden vectors: proto/fixtures/chain.json.
 */

import { Erased } from "../gen/messages.ts";
import { encodeUtf8 } from "../wire/bytes.ts";
import { WireError } from "../wire/errors.ts";
import { decodeBinary } from "../wire/protobuf.ts";
import type { Frame } from "../wire/server_messages.ts";
import type { Bytes } from "../wire/types.ts";

export const ERASED_KIND = "khala.erased";
const SHA256_BYTES = 32;
const DOMAIN = "khala.chain.v1\0";

/** One link: either the payload, or, of an erased frame, its hash. */
export interface Link {
  readonly seq: bigint;
  readonly schemaVersion: number;
  readonly kind: string;
  readonly payload: Bytes | null;
  readonly payloadSha256: Bytes | null;
}

/**
 * Return the link of a frame, erased or not.
 *
 * @throws WireError - malformed_message; an erased frame that does not name what it replaced.
 */
export function linkOf(frame: Frame): Link {
  if (frame.kind !== ERASED_KIND) {
    return {
      seq: frame.seq,
      schemaVersion: frame.schemaVersion,
      kind: frame.kind,
      payload: frame.payload,
      payloadSha256: null,
    };
  }
  const erased = decodeBinary(frame.payload, Erased);
  if (
    erased.original_kind === "" ||
    erased.payload_sha256.length !== SHA256_BYTES ||
    erased.original_schema_version < 1
  ) {
    throw new WireError("not the payload of khala.erased", "payload_bytes");
  }
  return {
    seq: frame.seq,
    schemaVersion: erased.original_schema_version,
    kind: erased.original_kind,
    payload: null,
    payloadSha256: erased.payload_sha256,
  };
}

/** Return what chain(0) of a topic is the hash of. */
export function startBytes(topic: string): Bytes {
  return encodeUtf8(DOMAIN + topic);
}

/** Return what the chain at a link's seq is the hash of. */
export function linkBytes(previous: Uint8Array, link: Link, payloadSha256: Uint8Array): Bytes {
  const kind = encodeUtf8(link.kind);
  const bytes = new Uint8Array(previous.length + 16 + kind.length + payloadSha256.length);
  const view = new DataView(bytes.buffer);
  bytes.set(previous);
  view.setBigUint64(previous.length, link.seq);
  view.setUint32(previous.length + 8, link.schemaVersion);
  view.setUint32(previous.length + 12, kind.length);
  bytes.set(kind, previous.length + 16);
  bytes.set(payloadSha256, previous.length + 16 + kind.length);
  return bytes;
}
