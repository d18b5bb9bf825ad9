/**
 * Binary protobuf to a message, driven by the generated tables. Pure.
 *
 * Payloads of events travel as protobuf in both subprotocols, so that the chain does not depend on
 * the subprotocol. Unknown fields are skipped: the writer may be newer.
 */

import { WireError } from "./errors.ts";
import { printableNumber } from "./json_printing.ts";
import { defaultOf, mappingOf, nameOf } from "./strict_json.ts";
import type { Bytes, EnumType, Field, JsonMapping, JsonValue, MessageType } from "./types.ts";

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;
const DEPTH_MAX = 100;

type Message = Record<string, unknown>;

/**
 * Return the message in these bytes.
 *
 * @throws WireError - malformed_message; they are not this message.
 */
export function decodeBinary<T extends object>(bytes: Uint8Array, type: MessageType<T>): T {
  return readMessage(new Reader(bytes), type, 0) as T;
}

function malformed(): WireError {
  return new WireError("a protobuf message");
}

class Reader {
  at = 0;
  private readonly view: DataView;

  constructor(private readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get isAtEnd(): boolean {
    return this.at >= this.bytes.length;
  }

  varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.bytes[this.at];
      if (byte === undefined) throw malformed();
      this.at += 1;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asUintN(64, value);
    }
    throw malformed();
  }

  slice(): Uint8Array {
    const length = this.varint();
    if (length > BigInt(this.bytes.length - this.at)) throw malformed();
    const from = this.at;
    this.at += Number(length);
    return this.bytes.subarray(from, this.at);
  }

  double(): number {
    if (this.at + 8 > this.bytes.length) throw malformed();
    const value = this.view.getFloat64(this.at, true);
    this.at += 8;
    return value;
  }

  skip(wireType: number): void {
    if (wireType === VARINT) this.varint();
    else if (wireType === BYTES) this.slice();
    else if (wireType === FIXED64) this.at += 8;
    else if (wireType === FIXED32) this.at += 4;
    else throw malformed();
    if (this.at > this.bytes.length) throw malformed();
  }
}

/** Return number and wire type of the next field. */
function readTag(reader: Reader): [number, number] {
  const tag = reader.varint();
  const no = Number(tag >> 3n);
  if (no === 0 || tag >= 2n ** 32n) throw malformed();
  return [no, Number(tag & 7n)];
}

function readMessage(reader: Reader, type: MessageType<object>, depth: number): Message {
  if (depth > DEPTH_MAX) throw malformed();
  const message: Message = {};
  for (const field of type.fields) if (!field.presence) message[field.name] = defaultOf(field);
  while (!reader.isAtEnd) {
    const [no, wireType] = readTag(reader);
    const field = type.fields.find((each) => each.no === no);
    const isPacked = field?.repeated === true && wireType === BYTES && wireTypeOf(field) !== BYTES;
    if (field === undefined || (wireType !== (field.map ? BYTES : wireTypeOf(field)) && !isPacked)) {
      reader.skip(wireType);
    } else if (field.map) {
      const [key, value] = readEntry(new Reader(reader.slice()), field, depth);
      (message[field.name] as Map<string, unknown>).set(key, value);
    } else if (isPacked) {
      const packed = new Reader(reader.slice());
      while (!packed.isAtEnd) (message[field.name] as unknown[]).push(readValue(packed, field, depth));
    } else if (field.repeated) {
      (message[field.name] as unknown[]).push(readValue(reader, field, depth));
    } else {
      if (field.oneof !== undefined) {
        for (const other of type.fields) if (other.oneof === field.oneof) delete message[other.name];
      }
      message[field.name] = readValue(reader, field, depth);
    }
  }
  return message;
}

function wireTypeOf(field: Field): number {
  switch (field.type) {
    case "bool":
    case "enum":
    case "int32":
    case "int64":
    case "uint32":
    case "uint64":
      return VARINT;
    case "double":
      return FIXED64;
    default:
      return BYTES;
  }
}

function readValue(reader: Reader, field: Field, depth: number): unknown {
  switch (field.type) {
    case "bool":
      return reader.varint() !== 0n;
    case "int32":
      return Number(BigInt.asIntN(32, reader.varint()));
    case "int64":
      return BigInt.asIntN(64, reader.varint());
    case "uint32":
      return Number(BigInt.asUintN(32, reader.varint()));
    case "uint64":
      return reader.varint();
    case "double":
      return reader.double();
    case "enum":
      return nameOf(field.of!() as EnumType, Number(BigInt.asIntN(32, reader.varint())));
    case "bytes":
      return reader.slice().slice() as Bytes;
    case "string":
      return decodeText(reader.slice());
    case "message":
      return readMessage(new Reader(reader.slice()), field.of!() as MessageType<object>, depth + 1);
    case "struct":
      return readStruct(new Reader(reader.slice()), depth + 1);
    case "value":
      return readFreeForm(new Reader(reader.slice()), depth + 1);
  }
}

function decodeText(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw malformed();
  }
}

function readEntry(reader: Reader, field: Field, depth: number): [string, unknown] {
  let key = "";
  const { map: _map, ...single } = field;
  let value: unknown = field.type === "value" ? null : defaultOf(single);
  while (!reader.isAtEnd) {
    const [no, wireType] = readTag(reader);
    if (no === 1 && wireType === BYTES) key = decodeText(reader.slice());
    else if (no === 2 && wireType === wireTypeOf(field)) value = readValue(reader, single, depth + 1);
    else reader.skip(wireType);
  }
  return [key, value];
}

// google.protobuf.Struct: a map of Value in field 1.
const STRUCT_FIELDS: Field = { no: 1, name: "fields", type: "value", map: true };

function readStruct(reader: Reader, depth: number): JsonMapping {
  if (depth > DEPTH_MAX) throw malformed();
  const entries = new Map<string, JsonValue>();
  while (!reader.isAtEnd) {
    const [no, wireType] = readTag(reader);
    if (no !== 1 || wireType !== BYTES) {
      reader.skip(wireType);
      continue;
    }
    const [key, value] = readEntry(new Reader(reader.slice()), STRUCT_FIELDS, depth);
    entries.set(key, value as JsonValue);
  }
  return mappingOf(new Map([...entries].sort(([one], [other]) => (one < other ? -1 : 1))));
}

// google.protobuf.Value: null 1, number 2, string 3, bool 4, struct 5, list 6.
function readFreeForm(reader: Reader, depth: number): JsonValue {
  if (depth > DEPTH_MAX) throw malformed();
  let value: JsonValue = null;
  while (!reader.isAtEnd) {
    const [no, wireType] = readTag(reader);
    if (no === 1 && wireType === VARINT) {
      reader.varint();
      value = null;
    } else if (no === 2 && wireType === FIXED64) value = printableNumber(reader.double());
    else if (no === 3 && wireType === BYTES) value = decodeText(reader.slice());
    else if (no === 4 && wireType === VARINT) value = reader.varint() !== 0n;
    else if (no === 5 && wireType === BYTES) value = readStruct(new Reader(reader.slice()), depth + 1);
    else if (no === 6 && wireType === BYTES) value = readList(new Reader(reader.slice()), depth + 1);
    else reader.skip(wireType);
  }
  return value;
}

function readList(reader: Reader, depth: number): JsonValue[] {
  const items: JsonValue[] = [];
  while (!reader.isAtEnd) {
    const [no, wireType] = readTag(reader);
    if (no === 1 && wireType === BYTES) items.push(readFreeForm(new Reader(reader.slice()), depth + 1));
    else reader.skip(wireType);
  }
  return items;
}
