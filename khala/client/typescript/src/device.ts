/** The id of this browser as a device: made once, kept, never shared with another browser profile. */

const KEY = "khala.device_id";
const FORM = /^dev_[0-9a-z]{8,64}$/;
const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";

/** Return whether the text can be a device id. */
export function isDeviceId(text: string): boolean {
  return FORM.test(text);
}

/** Return a new id of 130 random bits. */
export function makeDeviceId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(26));
  return `dev_${[...bytes].map((byte) => ALPHABET[byte & 31]).join("")}`;
}

/** Return the kept id, made if there is none; a new one for each page where nothing can be kept. */
export function loadDeviceId(): string {
  try {
    const kept = localStorage.getItem(KEY);
    if (kept !== null && isDeviceId(kept)) return kept;
    const made = makeDeviceId();
    localStorage.setItem(KEY, made);
    // Two tabs may do this at once: the one that wrote last is the one that both read.
    return localStorage.getItem(KEY) ?? made;
  } catch {
    return makeDeviceId();
  }
}
