// Who is signed in. The refresh token is a cookie that no script can read; the access token lives in memory and
// ends with the page. A device keeps one id in IndexedDB, because the cookie is bound to it.

import { makeDeviceId } from "../../../khala/client/typescript/src/device.ts";
import { errorFor, ReauthRequired, Unavailable } from "../../../khala/client/typescript/src/errors.ts";
import type { Settings } from "./settings.ts";

// Asked for again this long before it ends, so that no request carries one that ends on the way.
const EARLY_MS = 60_000;
const DEVICE = "device_id";

export interface Person {
  readonly userId: string;
  readonly login: string;
}

export class Session {
  readonly #settings: Settings;
  #token = "";
  #endsAt = 0;
  #refreshing: Promise<void> | null = null;
  deviceId = "";
  person: Person | null = null;
  /** The page's own switch: while it is set nothing is asked of anybody. */
  isCut = false;

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  /**
   * Take up the session of this browser.
   *
   * @returns whether somebody is signed in.
   * @throws KhalaError - control does not answer; nothing is known.
   */
  async begin(): Promise<boolean> {
    this.deviceId = await this.#settings.settle(DEVICE, makeDeviceId());
    try {
      await this.#refresh();
      return true;
    } catch (error) {
      if (isSignedOut(error)) return false;
      throw error;
    }
  }

  /** Where a browser goes to sign in, and comes back to this place. */
  signInUrl(): string {
    const query = new URLSearchParams({ device_id: this.deviceId, return_to: location.pathname + location.hash });
    return `/api/auth/start?${query.toString()}`;
  }

  async signOut(): Promise<void> {
    try {
      const headers = { "Content-Type": "application/json", Authorization: `Bearer ${await this.accessToken()}` };
      await this.#send("/api/auth/logout", { method: "POST", headers, body: "{}" });
    } finally {
      this.#token = "";
      this.#endsAt = 0;
      this.person = null;
    }
  }

  /** Return a token that is valid for a minute or more. Throws KhalaError; reauth_required: signed out. */
  async accessToken(): Promise<string> {
    if (Date.now() > this.#endsAt - EARLY_MS) await this.#refresh();
    return this.#token;
  }

  #refresh(): Promise<void> {
    this.#refreshing ??= this.#refreshOnce().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  async #refreshOnce(): Promise<void> {
    const renew = async (): Promise<void> => {
      const answer = await this.#send("/api/auth/refresh", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ device_id: this.deviceId }),
      });
      const session = answer["session"] as Record<string, unknown>;
      this.#token = String(answer["access_token"]);
      this.#endsAt = Number(answer["access_expires_at"]);
      this.person = { userId: String(session["user_id"]), login: String(session["login"]) };
    };
    // One tab at a time: each rotation spends the cookie that another tab may be about to send.
    if ("locks" in navigator) await navigator.locks.request("khala-refresh", renew);
    else await renew();
  }

  async #send(path: string, init: RequestInit): Promise<Record<string, unknown>> {
    let response: Response;
    try {
      if (this.isCut) throw new TypeError("cut");
      response = await fetch(path, { ...init, credentials: "same-origin", cache: "no-store" });
    } catch {
      throw new Unavailable("No answer. Either the network or the server is away.");
    }
    const answer = (await response.json().catch(() => ({}))) as Record<string, unknown>;
    if (response.ok) return answer;
    throw errorFor(String(answer["code"] ?? "unavailable"), {
      message: String(answer["message"] ?? ""),
      retryAfterMs: Number(answer["retry_after_ms"] ?? 0),
      requestId: String(answer["request_id"] ?? ""),
      details: (answer["details"] ?? {}) as Record<string, string>,
    });
  }
}

/** Whether an error means that nobody is signed in here any more. */
export function isSignedOut(error: unknown): boolean {
  return error instanceof ReauthRequired;
}
