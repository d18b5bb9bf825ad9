/**
 * The whole client without I/O: every followed topic over one connection after the other.
 *
 * The ring (src/link.ts) owns the socket and the waiting; it performs each Output before it takes the
 * next step:
 *
 *     connected(token, topics)    a socket is open              -> hello
 *     receiveUntrusted(text)      one message                   -> work to seal, replies
 *     sealed(topic, ticket, ..)   hashes that were asked for    -> deliveries
 *     follow / leave / pause / resume / renew / tick            -> whatever they need to send
 *     disconnected(closeCode)     the socket is gone            -> reconnect when, or stop why
 *
 * One ended connection, one decision, one wait: the ring has no retry of its own around this one.
 * Subscribes are sent only for topics that the connection's token was minted for; a topic added later
 * asks for a new token first (token_due) and is subscribed when `renewed` confirms it.
 */

import { errorFor, KhalaError, ReauthRequired, UpgradeRequired } from "../errors.ts";
import type { ErrorMessage, ServerMessage, TopicHeartbeat } from "../wire/server_messages.ts";
import type { Bytes } from "../wire/types.ts";
import { type Advised, adviseClose } from "./advice.ts";
import { Backoff, type Random } from "./backoff.ts";
import { encodeClientMessage, type Identity } from "./client_messages.ts";
import type { After } from "./cursor.ts";
import { TopicFollow } from "./follow.ts";
import { type Happening, NOTHING, output, type Output } from "./happenings.ts";
import { ClientProtocol, RemoteProtocolError } from "./protocol.ts";

// SPEC section 6: subscriptions of one connection, and topics of one token.
export const FOLLOWS_MAX = 256;
// What a subscribe may name if the welcome does not say.
const TOPICS_PER_MESSAGE = 64;
// In so many rounds a node has sent something of every topic that has frames: its largest frame has 16 times
// the bytes of one turn.
const TURNS = 20;

/** Wait `delayMs`, mint a token, connect and resume; `code` says why it ended. */
export interface Reconnect {
  readonly type: "reconnect";
  readonly delayMs: number;
  readonly code: string;
  /** The wait is our own draw and may be cut short; a server's return time may not. */
  readonly isHintable: boolean;
}
/** Do not reconnect: every followed topic ends with `error`. */
export interface Stop {
  readonly type: "stop";
  readonly error: KhalaError;
}
export type Decision = Reconnect | Stop;

function reconnect(delayMs: number, code: string, retryAfterMs = 0): Reconnect {
  return { type: "reconnect", delayMs, code, isHintable: retryAfterMs === 0 };
}

function stop(error: KhalaError): Stop {
  return { type: "stop", error };
}

/** Follows any number of topics; holds no socket, no clock and no task. */
export class SyncMachine {
  private readonly backoff = new Backoff();
  private protocol: ClientProtocol | null = null;
  private readonly follows = new Map<string, TopicFollow>();
  // Topics of the token in force, and of the one that a renew has just presented.
  private granted: ReadonlySet<string> = new Set();
  private presented: ReadonlySet<string> | null = null;
  private isTokenAwaited = false;
  private wasFreshAuthorityRefused = false;
  private isClosedByUs = false;
  // Messages with frames, of any topic and connection.
  private framesSeen = 0;

  constructor(
    private readonly identity: Identity,
    private readonly random: Random,
  ) {}

  // -- what is followed ---------------------------------------------------------------------

  /** Topics to mint the next token for, sorted. */
  get topics(): readonly string[] {
    return [...this.follows.values()]
      .filter(isWanted)
      .map((each) => each.topic)
      .sort();
  }

  followOf(topic: string): TopicFollow | undefined {
    return this.follows.get(topic);
  }

  /**
   * Start to follow `topic`.
   *
   * @param zeroChain - chain(0) of the topic.
   * @throws RangeError - it is followed already, or FOLLOWS_MAX topics are.
   */
  follow(topic: string, after: After, zeroChain: Bytes): Output {
    const before = this.follows.get(topic);
    if (before !== undefined && isWanted(before)) throw new RangeError(`${topic} is followed already`);
    if (before === undefined && this.follows.size >= FOLLOWS_MAX) {
      throw new RangeError(`${FOLLOWS_MAX} topics are followed already`);
    }
    const follow = new TopicFollow(topic, after, zeroChain, this.random);
    if (before?.state === "leaving") follow.succeed(before);
    this.follows.set(topic, follow);
    return this.due();
  }

  /** Stop following `topic`; unknown topics are left already. */
  leave(topic: string): Output {
    const follow = this.follows.get(topic);
    if (follow !== undefined) {
      follow.isUnwanted = true;
      follow.leave();
    }
    return this.due();
  }

  /** Take no more of `topic` until `resume`; the cursor stays where it is. */
  pause(topic: string): Output {
    const follow = this.follows.get(topic);
    if (follow !== undefined) {
      follow.isPaused = true;
      follow.leave();
    }
    return this.due();
  }

  /** Take `topic` up again after its cursor. */
  resume(topic: string): Output {
    const follow = this.follows.get(topic);
    if (follow !== undefined) follow.isPaused = false;
    return this.due();
  }

  // -- one connection -----------------------------------------------------------------------

  /** True between welcome and the end of the connection. */
  get isOpen(): boolean {
    return this.protocol?.phase === "open";
  }

  /** Begin on a new socket with a token minted for `topics`. */
  connected(token: string, topics: readonly string[], nowMs: number): Output {
    this.protocol = new ClientProtocol(this.identity, this.random);
    this.granted = new Set(topics);
    this.presented = null;
    this.isTokenAwaited = false;
    return output({ send: [this.protocol.open(token, nowMs)] });
  }

  /** Take one message. A violation closes the connection; what was accepted before stays. */
  receiveUntrusted(text: string, nowMs: number): Output {
    const protocol = this.openProtocol();
    let message: ServerMessage | null;
    let happenings: readonly Happening[];
    try {
      [message, happenings] = protocol.receiveUntrusted(text, nowMs);
      if (message !== null) happenings = [...happenings, ...this.dispatch(message, nowMs)];
    } catch (error) {
      if (!(error instanceof RemoteProtocolError)) throw error;
      this.isClosedByUs = true;
      // What one message brought before the trouble in it is accepted, and still has to be sealed.
      return output({ happenings: this.sealWork(), close: { code: 1000, reason: error.code } });
    }
    if (message?.type === "welcome") this.backoff.begin(nowMs);
    if (message?.type === "renewed" && this.presented !== null) {
      this.granted = this.presented;
      this.presented = null;
    }
    return this.due(happenings);
  }

  private sealWork(): readonly Happening[] {
    return [...this.follows.values()].flatMap((follow) => follow.takeWork());
  }

  private dispatch(message: ServerMessage, nowMs: number): readonly Happening[] {
    switch (message.type) {
      case "frames":
        this.framesSeen += 1;
        return this.followNamed(message.frames[0]!.topic).noteFrames(message.frames);
      case "subscribed":
        return this.followNamed(message.topic).noteSubscribed(message);
      case "replay_complete":
        return this.followNamed(message.topic).noteReplayComplete(message);
      case "heartbeat":
        return this.noteHeartbeat(message.topics, nowMs);
      // Both sides may end a subscription at once: what comes about one that is gone here (the ack of
      // an unsubscribe after the node's own decision) is about nothing any more.
      case "unsubscribed":
        return this.follows.get(message.topic)?.noteUnsubscribed(message, nowMs) ?? [];
      case "stale_cursor":
        return this.follows.get(message.topic)?.noteStale(message) ?? [];
      case "lagging":
        return this.follows.get(message.topic)?.noteLagging(message) ?? [];
      case "error":
        return this.follows.get(message.topic)?.noteError(message, nowMs) ?? [];
      default:
        return [];
    }
  }

  private noteHeartbeat(beats: readonly TopicHeartbeat[], nowMs: number): readonly Happening[] {
    const settleMs = this.openProtocol().heartbeatIntervalMs / 2;
    const turns = TURNS * (1 + this.follows.size);
    const moment = { nowMs, framesSeen: this.framesSeen, settleMs, turns };
    return beats.flatMap((beat) => this.follows.get(beat.topic)?.noteHeartbeat(beat, moment) ?? []);
  }

  private followNamed(topic: string): TopicFollow {
    const follow = this.follows.get(topic);
    if (follow === undefined) {
      throw new RemoteProtocolError("protocol_error", `a message about ${topic}, which is not followed`);
    }
    return follow;
  }

  /** Take the hashes of a piece of work; also those of a topic that is gone by now. */
  sealed(topic: string, ticket: number, chains: readonly Bytes[]): Output {
    return this.due(this.follows.get(topic)?.noteSealed(ticket, chains) ?? []);
  }

  /** The hashes cannot be had: end the topic, because nothing of it can be verified. */
  sealFailed(topic: string, ticket: number, error: KhalaError): Output {
    return this.due(this.follows.get(topic)?.noteSealFailed(ticket, error) ?? []);
  }

  /** Do what is due at `nowMs`. */
  tick(nowMs: number): Output {
    for (const follow of this.follows.values()) follow.tick(nowMs);
    if (this.protocol === null) return NOTHING;
    const ticked = this.protocol.tick(nowMs);
    if (ticked.close !== null) {
      this.isClosedByUs = true;
      return ticked;
    }
    if (ticked.happenings.some((each) => each.type === "token_due")) this.isTokenAwaited = true;
    const rest = this.due();
    return output({
      send: [...ticked.send, ...rest.send],
      happenings: [...ticked.happenings, ...rest.happenings],
    });
  }

  /** Return when `tick` has something to do; null if nothing is planned. */
  nextWakeupMs(): number | null {
    const planned = [...this.follows.values()].map((follow) => follow.retryAtMs);
    planned.push(this.protocol?.nextWakeupMs() ?? null);
    const due = planned.filter((atMs) => atMs !== null);
    return due.length > 0 ? Math.min(...due) : null;
  }

  /** Present a token minted for `topics` on the open connection (the answer to token_due). */
  renew(token: string, topics: readonly string[]): Output {
    this.isTokenAwaited = false;
    // The connection may have ended while the token was minted; the next one mints its own.
    if (!this.isOpen) return NOTHING;
    const minted = new Set(topics);
    if ([...this.follows.values()].some((follow) => follow.isAtNode && !minted.has(follow.topic))) {
      // Subscribed under the grant before, while this token was minted: it would take the topic away.
      this.isTokenAwaited = true;
      return output({ happenings: [{ type: "token_due" }] });
    }
    this.presented = minted;
    return output({ send: [this.openProtocol().renew(token)] });
  }

  /** No token could be had for the open connection: try later, or end what it was for. */
  renewFailed(error: KhalaError, nowMs: number): Output {
    this.isTokenAwaited = false;
    if (!this.isOpen) return NOTHING;
    if (error.retryable || error.topic !== null) {
      // Still awaited: until then no message of the node asks for another one.
      this.isTokenAwaited = true;
      if (!error.retryable && error.topic !== null && this.topics.includes(error.topic)) {
        // The others go on, and need their token now.
        this.openProtocol().retryRenew(nowMs);
        return this.endTopic(error.topic, error);
      }
      // Trouble, or a topic that was left meanwhile.
      this.openProtocol().retryRenew(nowMs + this.backoff.nextDelayMs(this.random, error.retryAfterMs));
      return NOTHING;
    }
    return { ...this.stop(error), close: { code: 1000, reason: error.code } };
  }

  private openProtocol(): ClientProtocol {
    if (this.protocol === null) throw new Error("no connection");
    return this.protocol;
  }

  // -- between connections --------------------------------------------------------------------

  /** Decide after the end of a connection; `closeCode` is null if no close frame came. */
  disconnected(closeCode: number | null, nowMs: number): Decision {
    const protocol = this.protocol;
    const wasOurs = this.isClosedByUs;
    const returnAtMs = protocol?.returnAtMs ?? null;
    this.endConnection(nowMs);
    if (this.backoff.failures === 0) this.wasFreshAuthorityRefused = false;
    if (returnAtMs !== null) {
      // However it ended, and whatever the node said last: the others expect us then. No failure of ours.
      const returnInMs = Math.max(0, returnAtMs - nowMs);
      return reconnect(returnInMs, "draining", returnInMs);
    }
    const error = protocol?.lastError ?? null;
    // The peer's close frame only echoes our code; why we closed is what counts.
    if (wasOurs) return this.decide({ code: "unavailable", step: "resume", isImmediate: false }, null);
    return this.decide(adviseClose(closeCode, error?.code ?? null), error);
  }

  /** Note that the ring closed the connection because nothing is followed: no failure, no wait. */
  hungUp(nowMs: number): void {
    this.endConnection(nowMs);
  }

  private endConnection(nowMs: number): void {
    this.protocol?.close();
    this.protocol = null;
    this.isClosedByUs = false;
    for (const follow of this.follows.values()) follow.detach();
    this.dropFinished();
    this.backoff.end(nowMs);
  }

  private decide(advised: Advised, error: ErrorMessage | null): Decision {
    const refusal = error === null ? null : errorFor(error.code, error);
    const retryAfterMs = error?.retryAfterMs ?? 0;
    switch (advised.step) {
      case "resume": {
        const isFirst = this.backoff.failures === 0;
        const delayMs = this.backoff.nextDelayMs(this.random, retryAfterMs);
        const isAtOnce = advised.isImmediate && isFirst && retryAfterMs === 0;
        return reconnect(isAtOnce ? 0 : delayMs, advised.code, retryAfterMs);
      }
      case "mint":
        if (this.wasFreshAuthorityRefused) return stop(refusal ?? new ReauthRequired(advised.code));
        this.wasFreshAuthorityRefused = true;
        return reconnect(this.backoff.nextDelayMs(this.random, retryAfterMs), advised.code, retryAfterMs);
      case "upgrade":
        return stop(refusal ?? new UpgradeRequired(advised.code));
      case "rebootstrap":
      case "give_up":
        return stop(refusal ?? new KhalaError(advised.code, { retryable: false }));
    }
  }

  /** Decide after a token could not be minted, or no socket could be opened. */
  connectFailed(error: KhalaError): Decision {
    if (!error.retryable) return stop(error);
    const delayMs = this.backoff.nextDelayMs(this.random, error.retryAfterMs);
    return reconnect(delayMs, error.code, error.retryAfterMs);
  }

  /** End one topic that control refuses to grant; the others go on. */
  endTopic(topic: string, error: KhalaError): Output {
    const follow = this.follows.get(topic);
    return this.due(follow !== undefined && isWanted(follow) ? follow.refuse(error) : []);
  }

  /** End every topic with `error`. */
  stop(error: KhalaError): Output {
    const happenings = [...this.follows.values()].filter(isWanted).flatMap((follow) => follow.end(error));
    // Whoever follows something after this has heard of it: sign-in or upgrade may have happened.
    this.wasFreshAuthorityRefused = false;
    this.dropFinished();
    return output({ happenings });
  }

  private dropFinished(): void {
    for (const [topic, follow] of this.follows) if (follow.isFinished) this.follows.delete(topic);
  }

  // -- what is due now --------------------------------------------------------------------------

  private due(happenings: readonly Happening[] = []): Output {
    this.dropFinished();
    if (!this.isOpen) return output({ happenings });
    const follows = [...this.follows.values()];
    const leaving = follows.filter((follow) => follow.takeUnsubscribe()).map((follow) => follow.topic);
    const askable = follows.filter((follow) => follow.isAskable);
    // Race: a subscribe behind our renew is judged by the new grants, also before `renewed` has come.
    const isGranted = (topic: string): boolean => this.granted.has(topic) && (this.presented?.has(topic) ?? true);
    const asked = askable.filter((follow) => isGranted(follow.topic)).map((follow) => follow.ask());
    const all = [...happenings];
    if (asked.length < askable.length && !this.isTokenAwaited && this.presented === null) {
      this.isTokenAwaited = true;
      all.push({ type: "token_due" });
    }
    const send = [
      ...this.portions(leaving).map((topics) => encodeClientMessage({ unsubscribe: { topics } })),
      ...this.portions(asked).map((topics) => encodeClientMessage({ subscribe: { topics } })),
    ];
    return output({ send, happenings: all });
  }

  private portions<T>(items: readonly T[]): readonly (readonly T[])[] {
    const size = this.protocol?.welcome?.topicsPerSubscribeMax || TOPICS_PER_MESSAGE;
    const portions: (readonly T[])[] = [];
    for (let start = 0; start < items.length; start += size) portions.push(items.slice(start, start + size));
    return portions;
  }
}

function isWanted(follow: TopicFollow): boolean {
  return !follow.isUnwanted && follow.state !== "ended";
}
