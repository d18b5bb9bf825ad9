/**
 * One connection as its client sees it, without I/O: order of messages, and deadlines.
 *
 *     new --open--> hello_sent --welcome--> open --end--> closed
 *                         \________________end____________/
 *
 * In `hello_sent` only `welcome` or an `error` about the connection may come; in `open` everything but
 * `welcome`. What concerns one topic is passed on to follow.ts, which has the automaton of topics.
 * Deadlines are swept by `tick`; `nextWakeupMs` says when it has something to do:
 *
 *     helloDeadlineMs     no welcome in time                              -> close
 *     deadAtMs            nothing received for dead_after_ms              -> close
 *     heartbeatAtMs       ours are due every heartbeat_interval_ms        -> heartbeat
 *     renewAtMs           2/3 of the token's life, earlier by the jitter  -> token_due, once per token
 *     leaveAtMs           the node leaves: our turn, or its own end       -> close, reconnect at returnAtMs
 *
 * The clock is monotonic; the server's wall clock is only compared with itself. A browser answers pings
 * by itself and shows no pong, so a sign of life is a message.
 */

import { WireError } from "../wire/errors.ts";
import {
  decodeServerMessageUntrusted,
  type ErrorMessage,
  type GoAway,
  type ServerMessage,
  type Welcome,
} from "../wire/server_messages.ts";
import { type Random, RETRY_AFTER_MAX_MS } from "./backoff.ts";
import { encodeClientMessage, helloOf, type Identity, PROTOCOL_RANGE } from "./client_messages.ts";
import { type Happening, NOTHING, output, type Output } from "./happenings.ts";

// The node redeems the token before it answers; its own deadline for our hello is 5 s.
export const WELCOME_DEADLINE_MS = 10_000;
// If a welcome names no interval or none that makes sense (SPEC section 6).
export const HEARTBEAT_INTERVAL_MS = 15_000;
export const DEAD_AFTER_MS = 45_000;
// Part of the token's life after which it is renewed, at the latest; the jitter subtracts up to
// RENEW_JITTER of the life, so that clients which connected together do not renew together.
export const RENEW_AT = 2 / 3;
export const RENEW_JITTER = 0.1;

/** We did what the protocol does not allow now: a bug of this client. */
export class LocalProtocolError extends Error {
  override readonly name = "LocalProtocolError";
}

/** The server did; `code` is the registry's name for it. */
export class RemoteProtocolError extends Error {
  override readonly name = "RemoteProtocolError";

  constructor(
    readonly code: string,
    readonly detail: string,
  ) {
    super(`${code}: ${detail}`);
  }
}

export type Phase = "new" | "hello_sent" | "open" | "closed";

/** The automaton of one connection; make a new one for the next. */
export class ClientProtocol {
  phase: Phase = "new";
  welcome: Welcome | null = null;
  lastError: ErrorMessage | null = null;
  helloDeadlineMs: number | null = null;
  deadAtMs: number | null = null;
  heartbeatAtMs: number | null = null;
  renewAtMs: number | null = null;
  leaveAtMs: number | null = null;
  /** When we may connect again; never before `leaveAtMs`. */
  returnAtMs: number | null = null;
  /** Time between two heartbeats, as the welcome names it. */
  heartbeatIntervalMs = HEARTBEAT_INTERVAL_MS;
  private deadAfterMs = DEAD_AFTER_MS;
  // Server wall clock minus our monotonic clock; set by welcome.
  private serverOffsetMs = 0;

  constructor(
    private readonly identity: Identity,
    private readonly random: Random,
  ) {}

  /** Return the hello. */
  open(token: string, nowMs: number): string {
    if (this.phase !== "new") throw new LocalProtocolError(`hello in phase ${this.phase}`);
    this.phase = "hello_sent";
    this.helloDeadlineMs = nowMs + WELCOME_DEADLINE_MS;
    return helloOf(token, this.identity);
  }

  /** Return the renew message; its `renewed` sets the next renewal. */
  renew(token: string): string {
    if (this.phase !== "open") throw new LocalProtocolError(`renew in phase ${this.phase}`);
    this.renewAtMs = null;
    return encodeClientMessage({ renew: { token } });
  }

  /** No token could be had: emit `token_due` again at `atMs`. */
  retryRenew(atMs: number): void {
    this.renewAtMs = atMs;
  }

  /**
   * Decode one message and check that it may come now.
   *
   * @returns The message (null if it says nothing), for follow.ts if it concerns topics, and what it
   *   means for the connection.
   * @throws RemoteProtocolError - it does not decode, or may not come in this phase.
   */
  receiveUntrusted(text: string, nowMs: number): [ServerMessage | null, readonly Happening[]] {
    if (this.phase !== "hello_sent" && this.phase !== "open") {
      throw new LocalProtocolError(`received in phase ${this.phase}`);
    }
    this.alive(nowMs);
    let message: ServerMessage | null;
    try {
      message = decodeServerMessageUntrusted(text);
    } catch (error) {
      if (error instanceof WireError) throw new RemoteProtocolError(error.code, error.message);
      throw error;
    }
    if (message === null) return [null, []];
    const happenings = this.phase === "open" ? this.noteOpen(message, nowMs) : this.noteFirst(message, nowMs);
    return [message, happenings];
  }

  private alive(nowMs: number): void {
    if (this.phase === "open") this.deadAtMs = nowMs + this.deadAfterMs;
  }

  private noteFirst(message: ServerMessage, nowMs: number): readonly Happening[] {
    if (message.type === "welcome") return this.noteWelcome(message, nowMs);
    if (message.type === "error" && message.topic === "") return this.noteRefusal(message);
    throw new RemoteProtocolError("protocol_error", `${message.type} before welcome`);
  }

  private noteOpen(message: ServerMessage, nowMs: number): readonly Happening[] {
    switch (message.type) {
      case "welcome":
        throw new RemoteProtocolError("protocol_error", "a second welcome");
      case "renewed":
        this.setTokenEnd(message.tokenExpiresAtMs, nowMs);
        return [];
      case "go_away":
        return [this.noteGoAway(message, nowMs)];
      case "error":
        return message.topic === "" ? this.noteRefusal(message) : [];
      case "heartbeat":
        this.serverOffsetMs = message.serverTimeMs - nowMs;
        return [];
      default:
        return [];
    }
  }

  private noteGoAway({ reconnectAfterMs, deadlineMs }: GoAway, nowMs: number): Happening {
    const returnInMs = Math.min(reconnectAfterMs, RETRY_AFTER_MAX_MS);
    this.returnAtMs = nowMs + returnInMs;
    this.leaveAtMs = nowMs + Math.min(returnInMs, deadlineMs || returnInMs);
    return { type: "leave_asked", reconnectAfterMs: returnInMs };
  }

  private noteRefusal(error: ErrorMessage): readonly Happening[] {
    this.lastError = error;
    return [{ type: "server_refused", error }];
  }

  private noteWelcome(welcome: Welcome, nowMs: number): readonly Happening[] {
    if (welcome.protocol < PROTOCOL_RANGE.min || welcome.protocol > PROTOCOL_RANGE.max) {
      throw new RemoteProtocolError("protocol_error", `welcome chose protocol ${welcome.protocol}`);
    }
    this.phase = "open";
    this.welcome = welcome;
    this.helloDeadlineMs = null;
    if (welcome.heartbeatIntervalMs > 0) this.heartbeatIntervalMs = welcome.heartbeatIntervalMs;
    if (welcome.deadAfterMs > 0) this.deadAfterMs = welcome.deadAfterMs;
    this.serverOffsetMs = welcome.serverTimeMs - nowMs;
    this.heartbeatAtMs = nowMs + this.heartbeatIntervalMs;
    this.alive(nowMs);
    this.setTokenEnd(welcome.tokenExpiresAtMs, nowMs);
    return [{ type: "welcomed", welcome }];
  }

  private setTokenEnd(expiresAtMs: number, nowMs: number): void {
    const lifeMs = Math.max(0, expiresAtMs - this.serverOffsetMs - nowMs);
    this.renewAtMs = nowMs + lifeMs * (RENEW_AT - RENEW_JITTER * this.random());
  }

  /** Do what the deadlines ask for at `nowMs`; call it again at `nextWakeupMs`. */
  tick(nowMs: number): Output {
    const isDue = (atMs: number | null): boolean => atMs !== null && nowMs >= atMs;
    if (isDue(this.helloDeadlineMs)) return closing("no welcome in time");
    if (isDue(this.deadAtMs)) return closing("nothing received in time");
    if (isDue(this.leaveAtMs)) return closing("leaving a draining node");
    const send: string[] = [];
    const happenings: Happening[] = [];
    if (isDue(this.heartbeatAtMs)) {
      this.heartbeatAtMs = nowMs + this.heartbeatIntervalMs;
      send.push(encodeClientMessage({ heartbeat: {} }));
    }
    if (isDue(this.renewAtMs)) {
      this.renewAtMs = null;
      happenings.push({ type: "token_due" });
    }
    return send.length + happenings.length > 0 ? output({ send, happenings }) : NOTHING;
  }

  /** Return when `tick` has something to do; null if nothing is planned. */
  nextWakeupMs(): number | null {
    const planned = [this.helloDeadlineMs, this.deadAtMs, this.leaveAtMs, this.heartbeatAtMs, this.renewAtMs];
    const due = planned.filter((atMs) => atMs !== null);
    return due.length > 0 ? Math.min(...due) : null;
  }

  /** Note the end; no deadline is left. */
  close(): void {
    this.phase = "closed";
    this.helloDeadlineMs = this.deadAtMs = this.leaveAtMs = this.heartbeatAtMs = this.renewAtMs = null;
  }
}

function closing(reason: string): Output {
  return output({ close: { code: 1000, reason } });
}
