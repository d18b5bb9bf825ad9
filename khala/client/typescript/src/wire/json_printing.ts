/**
 * The strict JSON mapping in the other direction: message to JSON. Pure.
 *
 * Fields without presence are printed also when they have their default value, 64-bit integers are
 * strings, bytes standard base64, enums names.
 */

import { encodeBase64 } from "./bytes.ts";
import { defaultOf, mappingOf } from "./strict_json.ts";
import type { Field, JsonMapping, JsonValue, MessageType } from "./types.ts";

/** Return the message as one line of JSON; fields that `message` leaves out have their default. */
export function printJson<T extends object>(message: Partial<T>, type: MessageType<T>): string {
  return JSON.stringify(messageToMapping(message, type));
}

/** Return the message as the value of its JSON document. */
export function messageToMapping<T extends object>(message: Partial<T>, type: MessageType<T>): JsonMapping {
  const given = message as Readonly<Record<string, unknown>>;
  const mapping = new Map<string, JsonValue>();
  for (const field of type.fields) {
    const value = given[field.name];
    if (value !== undefined) mapping.set(field.name, fieldValue(field, value));
    else if (!field.presence) mapping.set(field.name, fieldValue(field, defaultOf(field)));
  }
  return mappingOf(mapping);
}

function fieldValue(field: Field, value: unknown): JsonValue {
  if (field.map) {
    const entries = [...(value as ReadonlyMap<string, unknown>)];
    entries.sort(([one], [other]) => (one < other ? -1 : 1));
    return mappingOf(new Map(entries.map(([key, item]) => [key, single(field, item)])));
  }
  if (field.repeated) return (value as readonly unknown[]).map((item) => single(field, item));
  return single(field, value);
}

function single(field: Field, value: unknown): JsonValue {
  switch (field.type) {
    case "message":
      return messageToMapping(value as object, field.of!() as MessageType<object>);
    case "bytes":
      return encodeBase64(value as Uint8Array);
    case "int64":
    case "uint64":
      return (value as bigint).toString();
    case "double":
      return printableNumber(value as number);
    default:
      return value as JsonValue;
  }
}

/** Return a number as JSON can say it; a foreign payload must not break a reader. */
export function printableNumber(number: number): JsonValue {
  if (Number.isFinite(number)) return number;
  return Number.isNaN(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity";
}
