/**
 * JSON text to a tree that has lost nothing: members as they were written, repeated keys included, and
 * numbers as their text. JSON.parse keeps the last of two equal keys and rounds long integers silently,
 * so a strict reader cannot be built on it. Pure.
 */

import { WireError } from "./errors.ts";

/** A number as it was written. */
export class JsonNumber {
  constructor(readonly text: string) {}
}

/** Members of an object in their order. */
export class JsonObject {
  readonly keys: string[] = [];
  readonly values: JsonNode[] = [];
}

export type JsonNode = null | boolean | string | JsonNumber | JsonNode[] | JsonObject;

// Far more than any message of ours has; the reader recurses once per level.
const DEPTH_MAX = 512;
// The longest integer that a double holds exactly has 309 digits.
const NUMBER_MAX_CHARS = 1024;

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const WORDS: ReadonlyMap<string, boolean | null> = new Map<string, boolean | null>([
  ["true", true],
  ["false", false],
  ["null", null],
]);
const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ["\\", "\\"],
  ["/", "/"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
]);
// eslint-disable-next-line no-control-regex -- JSON forbids exactly these inside a string
const CONTROL = /[\u0000-\u001f]/;
const HEX4 = /^[0-9a-fA-F]{4}$/;

/**
 * Return the document.
 *
 * @throws WireError - malformed_message; it is not exactly one JSON document (of bytes: in UTF-8).
 */
export function parseJsonUntrusted(text: string | Uint8Array): JsonNode {
  const reader = new Reader(typeof text === "string" ? text : decodeUtf8(text));
  const node = reader.value(0);
  reader.end();
  return node;
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw refusal();
  }
}

function refusal(): WireError {
  return new WireError("one JSON document in UTF-8");
}

class Reader {
  private at = 0;

  constructor(private readonly text: string) {}

  end(): void {
    this.skipSpace();
    if (this.at !== this.text.length) throw refusal();
  }

  value(depth: number): JsonNode {
    if (depth > DEPTH_MAX) throw refusal();
    this.skipSpace();
    switch (this.text[this.at]) {
      case "{":
        return this.object(depth);
      case "[":
        return this.array(depth);
      case '"':
        return this.string();
      case "t":
      case "f":
      case "n":
        return this.word();
      default:
        return this.number();
    }
  }

  private object(depth: number): JsonObject {
    const object = new JsonObject();
    this.at += 1;
    if (this.takes("}")) return object;
    do {
      this.skipSpace();
      if (this.text[this.at] !== '"') throw refusal();
      object.keys.push(this.string());
      if (!this.takes(":")) throw refusal();
      object.values.push(this.value(depth + 1));
    } while (this.takes(","));
    if (!this.takes("}")) throw refusal();
    return object;
  }

  private array(depth: number): JsonNode[] {
    const items: JsonNode[] = [];
    this.at += 1;
    if (this.takes("]")) return items;
    do items.push(this.value(depth + 1));
    while (this.takes(","));
    if (!this.takes("]")) throw refusal();
    return items;
  }

  private string(): string {
    let text = "";
    let from = this.at + 1;
    for (;;) {
      const quote = this.text.indexOf('"', from);
      if (quote < 0) throw refusal();
      // One search per piece: most strings have no escape, and payloads are long.
      const piece = this.text.slice(from, quote);
      const escape = piece.indexOf("\\");
      const plain = escape < 0 ? piece : piece.slice(0, escape);
      if (CONTROL.test(plain)) throw refusal();
      text += plain;
      if (escape < 0) {
        this.at = quote + 1;
        return text;
      }
      const [character, length] = this.escape(from + escape + 1);
      text += character;
      from += escape + 1 + length;
    }
  }

  private escape(at: number): [string, number] {
    const letter = this.text[at] ?? "";
    const plain = ESCAPES.get(letter);
    if (plain !== undefined) return [plain, 1];
    const digits = this.text.slice(at + 1, at + 5);
    if (letter !== "u" || !HEX4.test(digits)) throw refusal();
    return [String.fromCharCode(Number.parseInt(digits, 16)), 5];
  }

  private word(): boolean | null {
    for (const [word, value] of WORDS) {
      if (this.text.startsWith(word, this.at)) {
        this.at += word.length;
        return value;
      }
    }
    throw refusal();
  }

  private number(): JsonNumber {
    NUMBER.lastIndex = this.at;
    const found = NUMBER.exec(this.text)?.[0];
    if (found === undefined || found.length > NUMBER_MAX_CHARS) throw refusal();
    this.at += found.length;
    return new JsonNumber(found);
  }

  private takes(character: string): boolean {
    this.skipSpace();
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  private skipSpace(): void {
    for (;;) {
      const code = this.text.charCodeAt(this.at);
      if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return;
      this.at += 1;
    }
  }
}
