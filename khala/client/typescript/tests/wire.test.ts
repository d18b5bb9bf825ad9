/** The golden fixtures of the wire: json, session, frames, chain, payloads. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { chainStart, sealLinks } from "../src/chain.ts";
import { ERASED_KIND, linkOf } from "../src/core/links.ts";
import { helloOf } from "../src/core/client_messages.ts";
import { decodePayload } from "../src/events.ts";
import * as m from "../src/gen/messages.ts";
import { decodeBase64, encodeBase64 } from "../src/wire/bytes.ts";
import { WireError } from "../src/wire/errors.ts";
import { printJson } from "../src/wire/json_printing.ts";
import { decodeBinary } from "../src/wire/protobuf.ts";
import { decodeServerMessageUntrusted, frameFromWire } from "../src/wire/server_messages.ts";
import { parseStrict } from "../src/wire/strict_json.ts";
import type { MessageType } from "../src/wire/types.ts";
import { fromHex, hex, load } from "./fixtures.ts";

const TYPES = new Map(
  Object.values(m as unknown as Record<string, MessageType<object>>).map((type) => [type.name, type]),
);

function typeOf(name: string): MessageType<object> {
  const type = TYPES.get(name);
  assert.ok(type, `no table of ${name}`);
  return type;
}

interface JsonRow {
  name: string;
  message: string;
  text?: string;
  text_repeat?: [string, number][];
  hex?: string;
  printed: string;
  field: string;
}

describe("json.json", () => {
  const fixture = load<{ valid: JsonRow[]; invalid: JsonRow[]; invalid_bytes: JsonRow[] }>("json.json");
  for (const row of fixture.valid) {
    test(`valid: ${row.name}`, () => {
      const type = typeOf(row.message);
      assert.equal(printJson(parseStrict(row.text!, type), type), row.printed);
      assert.equal(printJson(parseStrict(Buffer.from(row.printed), type), type), row.printed);
    });
  }
  for (const row of [...fixture.invalid, ...fixture.invalid_bytes]) {
    test(`invalid: ${row.name}`, () => {
      const text = row.text ?? row.text_repeat?.map(([part, times]) => part.repeat(times)).join("");
      const input = row.hex === undefined ? text! : fromHex(row.hex);
      assert.throws(
        () => parseStrict(input, typeOf(row.message)),
        (error) => error instanceof WireError && error.code === "malformed_message" && error.field === row.field,
      );
    });
  }
});

describe("session.json", () => {
  const { transcript } = load<{ transcript: { from: string; json: string; binary_hex: string }[] }>("session.json");
  for (const [index, row] of transcript.entries()) {
    const type = row.from === "client" ? m.ClientMessage : m.ServerMessage;
    test(`${row.from} ${index}: JSON and binary are one message`, () => {
      const message = parseStrict<object>(row.json, type);
      assert.deepEqual(decodeBinary<object>(fromHex(row.binary_hex), type), message);
      if (row.from === "client") assert.equal(printJson<object>(message, type), row.json);
    });
    if (row.from === "server") {
      test(`server ${index}: is understood`, () => assert.notEqual(decodeServerMessageUntrusted(row.json), null));
    }
  }
  test("the hello of this client is the fixture's, but for its build", () => {
    const identity = { deviceId: "dev_0f1x7ure00", clientBuildId: "khala-python/0.1.0" };
    assert.equal(helloOf("header.claims.signature", identity), transcript[0]!.json);
  });
});

describe("frames.json", () => {
  interface Row {
    name: string;
    topic: string;
    seq: string;
    kind: string;
    payload_hex: string;
    schema_version: number;
    json: string;
  }
  for (const row of load<{ frames: Row[] }>("frames.json").frames) {
    test(row.name, () => {
      const frame = frameFromWire(parseStrict(row.json, m.KhalaFrame), "frame");
      assert.deepEqual(
        [frame.topic, frame.seq.toString(), frame.kind, hex(frame.payload), frame.schemaVersion],
        [row.topic, row.seq, row.kind, row.payload_hex, row.schema_version],
      );
    });
  }
});

describe("chain.json", () => {
  interface Link {
    seq: string;
    schema_version: number;
    kind: string;
    payload_hex: string;
    chain_hex: string;
  }
  const fixture = load<{
    starts: { topic: string; chain_hex: string }[];
    histories: { name: string; topic: string; erased_frames: number; links: Link[] }[];
  }>("chain.json");
  for (const row of fixture.starts) {
    test(`start of ${row.topic}`, async () => assert.equal(hex(await chainStart(row.topic)), row.chain_hex));
  }
  for (const history of fixture.histories) {
    test(history.name, async () => {
      const frames = history.links.map((link) => ({
        topic: history.topic,
        seq: BigInt(link.seq),
        kind: link.kind,
        payload: fromHex(link.payload_hex),
        schemaVersion: link.schema_version,
      }));
      const chains = await sealLinks(await chainStart(history.topic), frames.map(linkOf));
      assert.deepEqual(
        chains.map(hex),
        history.links.map((link) => link.chain_hex),
      );
      assert.equal(frames.filter((frame) => frame.kind === ERASED_KIND).length, history.erased_frames);
    });
  }
  test("an erased frame that does not name what it replaced is refused", () => {
    const frame = { topic: "t", seq: 1n, kind: ERASED_KIND, payload: new Uint8Array([1]), schemaVersion: 1 };
    assert.throws(() => linkOf(frame), WireError);
    assert.throws(() => linkOf({ ...frame, payload: new Uint8Array() }), WireError);
  });
});

describe("runtime-orchestration-v1.json", () => {
  interface Row {
    topic_class: string;
    kind: string;
    payload_hex: string;
    data: unknown;
  }
  const { payloads } = load<{ payloads: Row[] }>("runtime-orchestration-v1.json");
  for (const [index, row] of payloads.entries()) {
    test(`payload ${index}: ${row.kind} in ${row.topic_class}`, () => {
      assert.deepEqual(decodePayload(row.kind, fromHex(row.payload_hex)), row.data);
    });
  }
  test("an unknown kind, or bytes that are not its message, keep their bytes", () => {
    assert.deepEqual(decodePayload("quasar.collapsed", fromHex("ff")), { payload_base64: "/w==" });
    assert.deepEqual(decodePayload("thought", fromHex("ff")), { payload_base64: "/w==" });
    assert.deepEqual(decodePayload("constructor", fromHex("")), { payload_base64: "" });
  });
});

describe("base64", () => {
  test("as Node encodes it, for every length and byte", () => {
    for (let length = 0; length < 70; length += 1) {
      const bytes = Uint8Array.from({ length }, (_, index) => (index * 37 + length * 11) & 255);
      const text = Buffer.from(bytes).toString("base64");
      assert.equal(encodeBase64(bytes), text);
      assert.deepEqual(decodeBase64(text), bytes);
    }
  });
  test("other spellings are refused", () => {
    for (const text of ["A", "AA", "AAA", "AAA=A", "A===", "====", "AA=A", "AB==", "AAB=", "A\u0100AA", "-_8="]) {
      assert.equal(decodeBase64(text), null, text);
    }
  });
});

describe("server messages", () => {
  const FRAME = { topic: "t", seq: "1", kind: "thought", payload_bytes: "", schema_version: 1 };
  const refused: [string, unknown, string][] = [
    ["frames of two topics", { frames: [FRAME, { ...FRAME, topic: "u", seq: "2" }] }, "frames[1].topic"],
    ["a hole between frames", { frames: [FRAME, { ...FRAME, seq: "3" }] }, "frames[1].seq"],
    ["a frame at seq 0", { frames: [{ ...FRAME, seq: "0" }] }, "frames[0].seq"],
    ["a frame without a kind", { frames: [{ ...FRAME, kind: "" }] }, "frames[0].kind"],
    ["a kind of 65 bytes", { frames: [{ ...FRAME, kind: "k".repeat(65) }] }, "frames[0].kind"],
    ["a schema version 0", { frames: [{ ...FRAME, schema_version: 0 }] }, "frames[0].schema_version"],
    ["frames beside control", { frames: [FRAME], heartbeat: {} }, "frames"],
    ["two control messages", { heartbeat: {}, renewed: {} }, "renewed"],
    ["a chain of 31 bytes", { replay_complete: { topic: "t", chain: "AAAA" } }, "replay_complete.chain"],
    ["no topic", { lagging: {} }, "lagging.topic"],
    ["no reason", { unsubscribed: { topic: "t" } }, "unsubscribed.reason"],
    ["an unknown field", { quasar: {} }, "quasar"],
  ];
  for (const [name, message, field] of refused) {
    test(`refused: ${name}`, () => {
      assert.throws(
        () => decodeServerMessageUntrusted(JSON.stringify(message)),
        (error) => error instanceof WireError && error.field === field,
      );
    });
  }
  test("an error code of the future is kept by name and not retryable", () => {
    const message = decodeServerMessageUntrusted('{"error":{"code":"quasar","retryable":true}}');
    assert.ok(message?.type === "error");
    assert.deepEqual([message.code, message.retryable, message.advice], ["quasar", false, "give_up"]);
  });
});
