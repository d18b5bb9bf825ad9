/** A message of the wire that cannot be what it claims to be. */

/** Refused input; `code` is the registry's name, `field` the path at fault (empty: the whole). */
export class WireError extends Error {
  override readonly name = "WireError";

  constructor(
    readonly detail: string,
    readonly field: string = "",
    readonly code: string = "malformed_message",
  ) {
    super(field ? `${code}: ${field}: ${detail}` : `${code}: ${detail}`);
  }
}
