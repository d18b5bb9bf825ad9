/** Bytes, their two text forms, and their order. Pure. */

import type { Bytes } from "./types.ts";

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const SIX_BITS = new Int8Array(128).fill(-1);
for (let value = 0; value < 64; value += 1) SIX_BITS[BASE64.charCodeAt(value)] = value;
const PAD = 61;

const ENCODER = new TextEncoder();

export function encodeUtf8(text: string): Bytes {
  return ENCODER.encode(text);
}

/**
 * Return the bytes of standard base64 with padding; null for anything else, also for a spelling that
 * differs from the one that encoding gives (bits after the end that are not zero).
 */
export function decodeBase64(text: string): Bytes | null {
  const length = text.length;
  if (length % 4 !== 0) return null;
  let padding = 0;
  if (length > 0 && text.charCodeAt(length - 1) === PAD) padding = text.charCodeAt(length - 2) === PAD ? 2 : 1;
  const bytes = new Uint8Array((length / 4) * 3 - padding);
  let at = 0;
  for (let index = 0; index < length; index += 4) {
    const pad = index + 4 === length ? padding : 0;
    const a = sixBits(text, index);
    const b = sixBits(text, index + 1);
    const c = pad === 2 ? 0 : sixBits(text, index + 2);
    const d = pad > 0 ? 0 : sixBits(text, index + 3);
    if (a < 0 || b < 0 || c < 0 || d < 0) return null;
    if ((pad === 2 && (b & 15) !== 0) || (pad === 1 && (c & 3) !== 0)) return null;
    bytes[at] = (a << 2) | (b >> 4);
    if (pad < 2) bytes[at + 1] = ((b & 15) << 4) | (c >> 2);
    if (pad < 1) bytes[at + 2] = ((c & 3) << 6) | d;
    at += 3;
  }
  return bytes;
}

function sixBits(text: string, index: number): number {
  const code = text.charCodeAt(index);
  return code < 128 ? SIX_BITS[code]! : -1;
}

export function encodeBase64(bytes: Uint8Array): string {
  let text = "";
  for (let index = 0; index < bytes.length; index += 3) {
    const [a, b, c] = [bytes[index]!, bytes[index + 1], bytes[index + 2]];
    text += BASE64[a >> 2]! + BASE64[((a & 3) << 4) | ((b ?? 0) >> 4)]!;
    text += b === undefined ? "=" : BASE64[((b & 15) << 2) | ((c ?? 0) >> 6)]!;
    text += c === undefined ? "=" : BASE64[c & 63]!;
  }
  return text;
}

export function encodeHex(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}

export function areBytesEqual(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}
