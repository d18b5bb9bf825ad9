/**
 * What the generated tables are made of. Types only.
 *
 * A message is a plain object with the field names of proto: 64-bit integers are `bigint`, bytes are
 * `Uint8Array`, enums their value's name (a number, where this build does not know the name), free-form
 * values plain JSON. Fields with presence are left out when they are not set.
 */

export type Bytes = Uint8Array<ArrayBuffer>;

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonMapping;
export interface JsonMapping {
  readonly [key: string]: JsonValue;
}

export interface EnumType {
  readonly name: string;
  readonly values: Readonly<Record<string, number>>;
}

export type FieldKind =
  | "bool"
  | "bytes"
  | "double"
  | "enum"
  | "int32"
  | "int64"
  | "message"
  | "string"
  | "struct"
  | "uint32"
  | "uint64"
  | "value";

export interface Field {
  readonly no: number;
  readonly name: string;
  readonly type: FieldKind;
  /** The enum or message of the field; a function, because messages refer to each other. */
  readonly of?: () => EnumType | MessageType<object>;
  readonly repeated?: true;
  /** A map from text to `type`. */
  readonly map?: true;
  readonly presence?: true;
  readonly oneof?: string;
}

export interface MessageType<T extends object> {
  readonly name: string;
  readonly fields: readonly Field[];
  /** Never set; ties the table to its interface. */
  readonly _message?: T;
}
