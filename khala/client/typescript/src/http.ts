/**
 * Control and runtime over HTTP: the routes that a page needs, one attempt per call.
 *
 * The strict JSON mapping both ways. The credential travels in the Authorization header only, never in a
 * URL, and no error here carries one. No retry: the caller is the operation's retry owner.
 */

import { errorFor, KhalaError, Unavailable } from "./errors.ts";
import * as m from "./gen/messages.ts";
import { WireError } from "./wire/errors.ts";
import { printJson } from "./wire/json_printing.ts";
import { errorFromWire } from "./wire/server_messages.ts";
import { parseStrict } from "./wire/strict_json.ts";
import type { MessageType } from "./wire/types.ts";

const JSON_TYPE = "application/json";
// Statuses that say "not now" in an answer that is not ours (a proxy's page).
const TROUBLE: ReadonlyMap<number, string> = new Map([
  [408, "unavailable"],
  [429, "rate_limited"],
  [502, "unavailable"],
  [503, "unavailable"],
  [504, "unavailable"],
]);
const REFUSED: ReadonlyMap<number, string> = new Map([
  [401, "unauthenticated"],
  [403, "forbidden"],
  [404, "not_found"],
]);
// A commit or a page of 4 MiB takes less; longer, and a dead path is noticed late.
const TIMEOUT_MS = 30_000;

/** Returns the access token of a session (or a service key, outside of browsers). */
export type GetBearer = () => string | Promise<string>;

export class KhalaHttp {
  /**
   * @param origin - The one origin, without a trailing slash.
   * @param getBearer - Called before each request.
   */
  constructor(
    private readonly origin: string,
    private readonly getBearer: GetBearer,
  ) {}

  /** Mint the token of one connection; throws Forbidden with `topic` if one may not be read. */
  async mintSyncToken(topics: readonly string[], deviceId: string): Promise<string> {
    const body = printJson({ topics, device_id: deviceId }, m.SyncTokenRequest);
    return (await this.call("POST", "/api/sync/token", m.SyncTokenResponse, body)).token;
  }

  /** Return events of a run with `seq > afterSeq`, ascending; a page. */
  readEvents(runId: string, afterSeq: bigint): Promise<m.ListEventsResponse> {
    const path = `/v1/runs/${encodeURIComponent(runId)}/events?after_seq=${afterSeq}`;
    return this.call("GET", path, m.ListEventsResponse);
  }

  /** Return where a topic stands. */
  getTopic(topic: string): Promise<m.TopicInfo> {
    return this.call("GET", `/v1/topics/${encodeURIComponent(topic)}`, m.TopicInfo);
  }

  /** Return a page of the caller's runs, newest first. */
  listRuns(pageToken = ""): Promise<m.ListRunsResponse> {
    const query = pageToken ? `?page_token=${encodeURIComponent(pageToken)}` : "";
    return this.call("GET", `/v1/runs${query}`, m.ListRunsResponse);
  }

  private async call<T extends object>(
    method: string,
    path: string,
    answer: MessageType<T>,
    body: string | null = null,
  ): Promise<T> {
    const headers: Record<string, string> = { Accept: JSON_TYPE, Authorization: `Bearer ${await this.getBearer()}` };
    if (body !== null) headers["Content-Type"] = JSON_TYPE;
    let response: Response;
    let text: string;
    try {
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      response = await fetch(this.origin + path, { method, headers, body, signal, credentials: "omit" });
      text = await response.text();
    } catch (error) {
      throw new Unavailable(error instanceof Error ? error.name : "no answer", { details: { outcome: "unknown" } });
    }
    if (!response.ok) throw refusal(response, text);
    try {
      return parseStrict(text, answer);
    } catch (error) {
      if (error instanceof WireError) throw new Unavailable("the answer is not one of this service");
      throw error;
    }
  }
}

/** Return the error that a refusing answer is. */
export function refusal(response: Response, text: string): KhalaError {
  const requestId = response.headers.get("X-Request-Id") ?? "";
  if (response.headers.get("Content-Type")?.split(";")[0]?.trim() === JSON_TYPE) {
    try {
      const error = errorFromWire(parseStrict(text, m.Error));
      if (error.code) return errorFor(error.code, { ...error, requestId: error.requestId || requestId });
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
    }
  }
  const details = { status: String(response.status) };
  const trouble = TROUBLE.get(response.status);
  if (trouble !== undefined) return new Unavailable("", { code: trouble, details, requestId });
  return errorFor(REFUSED.get(response.status) ?? "internal", { retryable: false, details, requestId });
}
