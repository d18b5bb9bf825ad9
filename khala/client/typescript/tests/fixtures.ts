/** Reads the golden fixtures that every client obeys: proto/fixtures. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Frame } from "../src/wire/server_messages.ts";
import type { Bytes } from "../src/wire/types.ts";

export function load<T>(name: string): T {
  const folder = process.env["KHALA_FIXTURES"];
  if (folder === undefined) throw new Error("KHALA_FIXTURES: the folder proto/fixtures");
  return JSON.parse(readFileSync(join(folder, name), "utf-8")) as T;
}

export function fromHex(text: string): Bytes {
  return new Uint8Array(Buffer.from(text, "hex"));
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** Return the frame that a fixture writes down with its payload in base64. */
export function frameOf(text: {
  topic: string;
  seq: string;
  kind: string;
  payload_base64: string;
  schema_version: number;
}): Frame {
  const payload = new Uint8Array(Buffer.from(text.payload_base64, "base64"));
  return { topic: text.topic, seq: BigInt(text.seq), kind: text.kind, payload, schemaVersion: text.schema_version };
}
