/**
 * The strict JSON mapping: text to message, refusing what a lenient reader would guess about. Pure.
 *
 * The same rules as khala_contracts/strict_json.py, held to the same file, proto/fixtures/json.json:
 * refused with the path of the field are unknown fields, a field or key given twice, both spellings of
 * one field, null, two members of a oneof, wrong types, numbers out of range or not exactly
 * representable, unpaired surrogates, base64 that is not standard with padding, enum values that are not
 * a known name, more than DEPTH_MAX levels.
 */

import { decodeBase64 } from "./bytes.ts";
import { WireError } from "./errors.ts";
import { type JsonNode, JsonNumber, JsonObject, parseJsonUntrusted } from "./json_text.ts";
import type { EnumType, Field, FieldKind, JsonMapping, JsonValue, MessageType } from "./types.ts";

/** As in Python: protobuf decoders stop at 100 nested messages, and one object in a Value nests three. */
export const DEPTH_MAX = 24;

const INTEGER = /^-?(?:0|[1-9][0-9]{0,19})$/;
const LONE_SURROGATE = /\p{Surrogate}/u;
const PLAIN = /^\w{1,64}$/;
const RANGES: Partial<Record<FieldKind, readonly [bigint, bigint]>> = {
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  uint32: [0n, 2n ** 32n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
};

type Message = Record<string, unknown>;

/**
 * Return the message that the text is the strict mapping of.
 *
 * @throws WireError - malformed_message, with the path of the field at fault.
 */
export function parseStrict<T extends object>(text: string | Uint8Array, type: MessageType<T>): T {
  return fillMessage(parseJsonUntrusted(text), type, "", 1) as T;
}

function members(node: JsonNode, path: string, depth: number): JsonObject {
  if (depth > DEPTH_MAX) throw new WireError(`at most ${DEPTH_MAX} levels`, path);
  if (!(node instanceof JsonObject)) throw new WireError("an object", path);
  return node;
}

function join(path: string, name: string): string {
  return path ? `${path}.${name}` : name;
}

// Field by either spelling; made once per message type.
const SPELLINGS = new WeakMap<MessageType<object>, ReadonlyMap<string, Field>>();

function spellings(type: MessageType<object>): ReadonlyMap<string, Field> {
  let known = SPELLINGS.get(type);
  if (known === undefined) {
    const camel = type.fields.map((field) => [camelCase(field.name), field] as const);
    known = new Map([...camel, ...type.fields.map((field) => [field.name, field] as const)]);
    SPELLINGS.set(type, known);
  }
  return known;
}

function camelCase(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_all, letter: string) => letter.toUpperCase());
}

function fillMessage(node: JsonNode, type: MessageType<object>, path: string, depth: number): Message {
  const { keys, values } = members(node, path, depth);
  const message: Message = {};
  const fields = spellings(type);
  const oneofs = new Set<string>();
  keys.forEach((key, index) => {
    const field = fields.get(key);
    // The key is the sender's own text: it is shown only if it could be a field's name.
    if (field === undefined) throw new WireError("a known field", join(path, PLAIN.test(key) ? key : "?"));
    const fieldPath = join(path, field.name);
    if (Object.hasOwn(message, field.name)) throw new WireError("given once, in one spelling", fieldPath);
    const value = values[index] as JsonNode;
    if (value === null) throw new WireError("not null; leave it out", fieldPath);
    if (field.oneof !== undefined) {
      if (oneofs.has(field.oneof)) throw new WireError(`one field of ${field.oneof}`, fieldPath);
      oneofs.add(field.oneof);
    }
    message[field.name] = readField(field, value, fieldPath, depth);
  });
  for (const field of type.fields) {
    if (!Object.hasOwn(message, field.name) && !field.presence) message[field.name] = defaultOf(field);
  }
  return message;
}

/** Return what a field without presence is when it was not given. */
export function defaultOf(field: Field): unknown {
  if (field.map) return new Map();
  if (field.repeated) return [];
  switch (field.type) {
    case "bool":
      return false;
    case "bytes":
      return new Uint8Array();
    case "string":
      return "";
    case "int64":
    case "uint64":
      return 0n;
    case "enum":
      return nameOf(field.of!() as EnumType, 0);
    default:
      return 0;
  }
}

/** Return the name of an enum's number, or the number if this build does not know it. */
export function nameOf(type: EnumType, number: number): string | number {
  for (const [name, value] of Object.entries(type.values)) if (value === number) return name;
  return number;
}

function readField(field: Field, node: JsonNode, path: string, depth: number): unknown {
  if (field.map) return readMap(field, node, path, depth + 1);
  if (!field.repeated) return readSingle(field, node, path, depth + 1);
  if (!Array.isArray(node)) throw new WireError("an array", path);
  return node.map((item, index) => {
    const itemPath = `${path}[${index}]`;
    if (item === null) throw new WireError("not null", itemPath);
    return readSingle(field, item, itemPath, depth + 2);
  });
}

function readMap(field: Field, node: JsonNode, path: string, depth: number): ReadonlyMap<string, unknown> {
  const { keys, values } = members(node, path, depth);
  const map = new Map<string, unknown>();
  keys.forEach((key, index) => {
    const name = readText(key, path);
    if (map.has(name)) throw new WireError("a key given once", path);
    map.set(name, readScalar(field, values[index] as JsonNode, path));
  });
  return map;
}

function readSingle(field: Field, node: JsonNode, path: string, depth: number): unknown {
  switch (field.type) {
    case "message":
      return fillMessage(node, field.of!() as MessageType<object>, path, depth);
    case "struct":
      return readStruct(node, path, depth);
    case "value":
      return readFreeForm(node, path, depth);
    default:
      return readScalar(field, node, path);
  }
}

function readStruct(node: JsonNode, path: string, depth: number): JsonMapping {
  const { keys, values } = members(node, path, depth);
  const mapping = new Map<string, JsonValue>();
  keys.forEach((key, index) => {
    const name = readText(key, path);
    const itemPath = join(path, PLAIN.test(name) ? name : "?");
    if (mapping.has(name)) throw new WireError("a key given once", itemPath);
    mapping.set(name, readFreeForm(values[index] as JsonNode, itemPath, depth + 1));
  });
  return mappingOf(mapping);
}

/** Return the entries as a plain object; a key such as `__proto__` stays an ordinary member. */
export function mappingOf(entries: ReadonlyMap<string, JsonValue>): JsonMapping {
  return Object.fromEntries(entries);
}

function readFreeForm(node: JsonNode, path: string, depth: number): JsonValue {
  if (node === null || typeof node === "boolean") return node;
  if (typeof node === "string") return readText(node, path);
  if (node instanceof JsonNumber) return readDouble(node, path);
  if (node instanceof JsonObject) return readStruct(node, path, depth);
  if (depth > DEPTH_MAX) throw new WireError(`at most ${DEPTH_MAX} levels`, path);
  return node.map((item, index) => readFreeForm(item, `${path}[${index}]`, depth + 1));
}

function readText(node: JsonNode, path: string): string {
  if (typeof node !== "string") throw new WireError("a string", path);
  if (LONE_SURROGATE.test(node)) throw new WireError("no unpaired surrogates", path);
  return node;
}

function readDouble(node: JsonNode, path: string): number {
  if (!(node instanceof JsonNumber)) throw new WireError("a number", path);
  const number = Number(node.text);
  if (!Number.isFinite(number)) throw new WireError("a finite number", path);
  if (/^-?[0-9]+$/.test(node.text) && BigInt(number) !== BigInt(node.text)) {
    throw new WireError("exactly representable as a double; use a string", path);
  }
  return number;
}

function readInteger(kind: FieldKind, node: JsonNode, path: string): bigint | number {
  const [low, high] = RANGES[kind]!;
  const text = node instanceof JsonNumber ? node.text : node;
  if (typeof text === "string" && INTEGER.test(text)) {
    const value = BigInt(text);
    if (low <= value && value <= high) return kind.endsWith("64") ? value : Number(value);
  }
  throw new WireError(`an integer, ${low}..${high}`, path);
}

function readScalar(field: Field, node: JsonNode, path: string): unknown {
  switch (field.type) {
    case "bool":
      if (typeof node !== "boolean") throw new WireError("true or false", path);
      return node;
    case "double":
      return readDouble(node, path);
    case "string":
      return readText(node, path);
    case "bytes": {
      const bytes = decodeBase64(readText(node, path));
      if (bytes === null) throw new WireError("standard base64 with padding", path);
      return bytes;
    }
    case "enum": {
      const type = field.of!() as EnumType;
      const name = readText(node, path);
      if (!Object.hasOwn(type.values, name)) throw new WireError(`the name of a value of ${type.name}`, path);
      return name;
    }
    default:
      return readInteger(field.type, node, path);
  }
}
