/** What an application sees of a topic: one event per frame, at the position where it was applied. */

import { ERASED_KIND } from "./core/links.ts";
import type { SealedFrame } from "./core/happenings.ts";
import { PAYLOADS } from "./gen/kinds.ts";
import { encodeBase64 } from "./wire/bytes.ts";
import { WireError } from "./wire/errors.ts";
import { messageToMapping } from "./wire/json_printing.ts";
import { decodeBinary } from "./wire/protobuf.ts";
import type { Bytes, JsonMapping } from "./wire/types.ts";

/** One immutable fact of a topic. */
export class KhalaEvent {
  private decoded: JsonMapping | null = null;

  constructor(
    readonly topic: string,
    /** Position in the topic: 1, 2, 3, ... without holes. A bigint: seq has 63 bits. */
    readonly seq: bigint,
    /** `<noun>.<past verb or part>`; unknown kinds are delivered as they are. */
    readonly kind: string,
    /** The payload message, encoded as protobuf. */
    readonly payload: Bytes,
    readonly schemaVersion: number,
    /** Hash that seals everything up to and including this event. */
    readonly chain: Bytes,
  ) {}

  static of({ frame, chain }: SealedFrame): KhalaEvent {
    return new KhalaEvent(frame.topic, frame.seq, frame.kind, frame.payload, frame.schemaVersion, chain);
  }

  /**
   * The payload as its JSON mapping (64-bit integers are strings); `{payload_base64}` for an unknown
   * kind. Decoded when it is first asked for.
   */
  get data(): JsonMapping {
    this.decoded ??= decodePayload(this.kind, this.payload);
    return this.decoded;
  }

  /** True if the payload was erased; `data` then says what stood here. */
  get isErased(): boolean {
    return this.kind === ERASED_KIND;
  }
}

/** Return a payload as its JSON mapping; never throws for what is in it. */
export function decodePayload(kind: string, payload: Bytes): JsonMapping {
  const type = Object.hasOwn(PAYLOADS, kind) ? PAYLOADS[kind] : undefined;
  if (type !== undefined) {
    try {
      return messageToMapping(decodeBinary(payload, type), type);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
    }
  }
  return { payload_base64: encodeBase64(payload) };
}
