/**
 * The one connection of a client, and its only retry owner.
 *
 * Runs for the life of a Khala object. While a topic is followed it mints a token, connects, lets the
 * sans-IO machine speak, and when the connection ends does what the machine decides: wait and reconnect,
 * or end every topic. While no topic is followed there is no socket.
 *
 * Invariants: at most one socket at any time; every Output of the machine is performed before the next
 * step (this is one thread, and only hashing and minting leave it).
 */

import { sealLinks } from "./chain.ts";
import type { Identity } from "./core/client_messages.ts";
import type { ApplyCounts } from "./core/apply.ts";
import type { After } from "./core/cursor.ts";
import type { CloseRequest, Happening, Output, SealDue, TopicHappening } from "./core/happenings.ts";
import { type Decision, type Reconnect, SyncMachine } from "./core/sync.ts";
import type { Environment, Socket } from "./environment.ts";
import { KhalaError, Unavailable } from "./errors.ts";
import type { LinkNotice } from "./notices.ts";
import type { Bytes } from "./wire/types.ts";

export const SUBPROTOCOL = "khala.v1.json";
// A mint asks the runtime for owners; longer, and a page looks broken before the backoff takes over.
export const MINT_TIMEOUT_MS = 20_000;
// Name resolution, TCP, TLS and upgrade together; browsers themselves wait for minutes.
export const CONNECT_TIMEOUT_MS = 10_000;
// Our close frame and the peer's; a peer that does not answer loses nothing by being cut.
export const CLOSE_TIMEOUT_MS = 1_000;
const NO_STATUS = 1005;
const ABNORMAL = 1006;

/** Mints a token for these topics; throws KhalaError. */
export type Mint = (topics: readonly string[]) => Promise<string>;

/** Who follows one topic: takes what happens to it, at once and without waiting. */
export interface Sink {
  putHappening(happening: TopicHappening): void;
  putNotice(notice: LinkNotice): void;
}

export class SyncLink {
  private readonly machine: SyncMachine;
  private readonly sinks = new Map<string, Sink>();
  private socket: Socket | null = null;
  private endSocket: ((closeCode: number | null) => void) | null = null;
  private isHangingUp = false;
  private isClosed = false;
  private isCut = false;
  private cancelTimer = (): void => {};
  // Waiting tasks look again whenever this is called.
  private wake = (): void => {};
  private changed = new Promise<void>((resolve) => (this.wake = resolve));
  private hints = 0;
  private readonly forgetHints: () => void;

  constructor(
    private readonly url: string,
    private readonly mint: Mint,
    identity: Identity,
    private readonly env: Environment,
  ) {
    this.machine = new SyncMachine(identity, env.random);
    this.forgetHints = env.onHint(() => this.takeHint());
    void this.run();
  }

  // -- for subscriptions ------------------------------------------------------------------------

  /** Follow `topic` for `sink`; throws RangeError if it is followed already, Unavailable after `close`. */
  follow(topic: string, after: After, zeroChain: Bytes, sink: Sink): void {
    if (this.isClosed) throw new Unavailable("the client was closed");
    const output = this.machine.follow(topic, after, zeroChain);
    this.sinks.set(topic, sink);
    this.perform(output);
    this.notifyChanged();
  }

  /** Stop following for `sink`; nothing more is put into it. */
  leave(topic: string, sink: Sink): void {
    if (this.sinks.get(topic) !== sink) return;
    this.sinks.delete(topic);
    this.perform(this.machine.leave(topic));
    this.notifyChanged();
  }

  /** Let the node stop sending `topic`: its sink is full. The cursor stays. */
  pause(topic: string): void {
    this.perform(this.machine.pause(topic));
  }

  /** Let it send again, after the cursor. */
  resume(topic: string): void {
    this.perform(this.machine.resume(topic));
  }

  /** Return the counts of a followed topic; null if it is not followed. */
  countsOf(topic: string): ApplyCounts | null {
    return this.machine.followOf(topic)?.counts ?? null;
  }

  /** Behave as if the network were gone until `restore`: for a page that shows what resuming does. */
  cut(): void {
    this.isCut = true;
    this.endSocket?.(null);
  }

  restore(): void {
    this.isCut = false;
    this.takeHint();
  }

  /** End the connection for good. */
  close(): void {
    this.isClosed = true;
    this.forgetHints();
    this.requestClose({ code: 1000, reason: "closed by the page" });
    this.notifyChanged();
  }

  // -- the loop ------------------------------------------------------------------------------------

  private async run(): Promise<void> {
    for (;;) {
      await this.until(() => this.isClosed || this.machine.topics.length > 0);
      if (this.isClosed) return;
      const decision = await this.runConnection();
      if (this.isClosed) return;
      if (decision === null) continue;
      if (decision.type === "stop") {
        this.perform(this.machine.stop(decision.error));
        continue;
      }
      this.notify({ type: "disconnected", code: decision.code, retryInMs: decision.delayMs });
      await this.waitOut(decision);
    }
  }

  /** Return what the end of one connection means; null: it was no failure, begin again. */
  private async runConnection(): Promise<Decision | null> {
    const topics = this.machine.topics;
    this.notify({ type: "connecting" });
    let token: string;
    try {
      token = await this.mintInTime(topics);
    } catch (error) {
      return this.mintRefused(khalaError(error), topics);
    }
    // What is followed may have changed while the token was minted; a token for too much does no harm.
    if (this.isClosed || this.machine.topics.length === 0) return null;
    const closeCode = await this.converse(token, topics);
    if (closeCode instanceof KhalaError) return this.machine.connectFailed(closeCode);
    if (this.isHangingUp) {
      this.machine.hungUp(this.env.nowMs());
      return null;
    }
    return this.machine.disconnected(closeCode, this.env.nowMs());
  }

  private mintRefused(error: KhalaError, topics: readonly string[]): Decision | null {
    if (error.topic !== null && !error.retryable && topics.includes(error.topic)) {
      // One topic of several may not be read: that one ends, the others go on at once. It may have been
      // left while it was asked for.
      this.perform(this.machine.endTopic(error.topic, error));
      return null;
    }
    return this.machine.connectFailed(error);
  }

  private mintInTime(topics: readonly string[]): Promise<string> {
    if (this.isCut) return Promise.reject(new Unavailable("the network is cut"));
    return this.inTime(this.mint(topics), MINT_TIMEOUT_MS, "no sync token in time");
  }

  private inTime<T>(promise: Promise<T>, timeoutMs: number, message: string): Promise<T> {
    return new Promise((resolve, reject) => {
      const cancel = this.env.schedule(() => reject(new Unavailable(message)), timeoutMs);
      promise.then(resolve, reject).finally(cancel);
    });
  }

  /** Hold one connection until it ends; return its close code, or why there was none at all. */
  private converse(token: string, topics: readonly string[]): Promise<number | null | KhalaError> {
    return new Promise((resolve) => {
      if (this.isCut) return resolve(new Unavailable("the network is cut"));
      let socket: Socket;
      try {
        socket = this.env.openSocket(this.url, SUBPROTOCOL);
      } catch (error) {
        return resolve(khalaError(error));
      }
      let isOpen = false;
      const end = (closeCode: number | null): void => {
        socket.onopen = socket.onmessage = socket.onclose = null;
        this.socket = this.endSocket = null;
        this.cancelTimer();
        cancelConnect();
        socket.close();
        resolve(isOpen ? closeCode : new Unavailable("no connection"));
      };
      const cancelConnect = this.env.schedule(() => end(null), CONNECT_TIMEOUT_MS);
      this.isHangingUp = false;
      this.endSocket = end;
      socket.onopen = () => {
        isOpen = true;
        cancelConnect();
        this.socket = socket;
        this.perform(this.machine.connected(token, topics, this.env.nowMs()));
        this.hangUpIfUnwanted();
      };
      socket.onmessage = ({ data }: MessageEvent) => this.receive(data as unknown);
      socket.onclose = ({ code }: CloseEvent) => end(code === ABNORMAL || code === NO_STATUS ? null : code);
    });
  }

  private receive(data: unknown): void {
    // Bytes are not of this subprotocol; as text they are refused like anything else malformed.
    const text = typeof data === "string" ? data : "";
    this.perform(this.machine.receiveUntrusted(text, this.env.nowMs()));
    this.tickIfDue();
    this.hangUpIfUnwanted();
  }

  private requestClose(request: CloseRequest): void {
    const { socket, endSocket } = this;
    if (endSocket === null) return;
    if (socket === null) return endSocket(null);
    // Nothing that still arrives matters: the next connection begins after the cursors.
    this.socket = null;
    socket.onmessage = null;
    this.cancelTimer();
    socket.close(request.code, request.reason);
    this.env.schedule(() => this.endSocket === endSocket && endSocket(null), CLOSE_TIMEOUT_MS);
  }

  private hangUpIfUnwanted(): void {
    if (this.socket === null || this.machine.topics.length > 0) return;
    this.isHangingUp = true;
    this.requestClose({ code: 1000, reason: "nothing is followed" });
  }

  private async waitOut(decision: Reconnect): Promise<void> {
    const seenHints = this.hints;
    let isOver = false;
    const cancel = this.env.schedule(() => {
      isOver = true;
      this.notifyChanged();
    }, decision.delayMs);
    // Whoever leaves and follows meanwhile does not shorten it: the next connection is still the next attempt.
    await this.until(() => isOver || this.isClosed || (decision.isHintable && this.hints > seenHints));
    cancel();
  }

  private async until(condition: () => boolean): Promise<void> {
    while (!condition()) await this.changed;
  }

  private notifyChanged(): void {
    this.wake();
    this.changed = new Promise((resolve) => (this.wake = resolve));
    this.hangUpIfUnwanted();
  }

  private takeHint(): void {
    this.hints += 1;
    // Timers of hidden pages and of sleeping machines are late: what they were for may be due.
    if (this.socket !== null) this.tick();
    this.notifyChanged();
  }

  // -- performing what the machine asks for ----------------------------------------------------------

  /** Timers of a hidden page come late, messages do not: what is due when one arrives is done. */
  private tickIfDue(): void {
    const atMs = this.machine.nextWakeupMs();
    if (this.socket !== null && atMs !== null && atMs <= this.env.nowMs()) this.tick();
  }

  private tick(): void {
    this.perform(this.machine.tick(this.env.nowMs()));
  }

  private perform(output: Output): void {
    for (const text of output.send) this.socket?.send(text);
    for (const happening of output.happenings) this.report(happening);
    if (output.close !== null) this.requestClose(output.close);
    this.cancelTimer();
    const atMs = this.machine.nextWakeupMs();
    if (this.socket !== null && atMs !== null) {
      this.cancelTimer = this.env.schedule(() => this.tick(), Math.max(0, atMs - this.env.nowMs()));
    }
  }

  private report(happening: Happening): void {
    switch (happening.type) {
      case "seal_due":
        void this.seal(happening);
        break;
      case "token_due":
        void this.renew();
        break;
      case "welcomed": {
        const { connectionId, nodeId } = happening.welcome;
        this.notify({ type: "connected", connectionId, nodeId });
        break;
      }
      case "leave_asked":
      case "server_refused":
        break; // the machine acts on them when the connection ends
      case "topic_ended": {
        const sink = this.sinks.get(happening.topic);
        this.sinks.delete(happening.topic);
        sink?.putHappening(happening);
        this.notifyChanged();
        break;
      }
      default:
        this.sinks.get(happening.topic)?.putHappening(happening);
    }
  }

  private async seal({ topic, ticket, chain, links }: SealDue): Promise<void> {
    let chains: readonly Bytes[];
    try {
      chains = await sealLinks(chain, links, this.env.digest);
    } catch (error) {
      this.perform(this.machine.sealFailed(topic, ticket, khalaError(error)));
      return;
    }
    this.perform(this.machine.sealed(topic, ticket, chains));
  }

  private async renew(): Promise<void> {
    const { socket } = this;
    const topics = this.machine.topics;
    let answer: string | KhalaError;
    try {
      answer = await this.mintInTime(topics);
    } catch (error) {
      answer = khalaError(error);
    }
    // Another connection has a token of its own, which may grant more than this one.
    if (socket === null || this.socket !== socket) return;
    if (answer instanceof KhalaError) this.perform(this.machine.renewFailed(answer, this.env.nowMs()));
    else this.perform(this.machine.renew(answer, topics));
  }

  private notify(notice: LinkNotice): void {
    for (const sink of [...this.sinks.values()]) sink.putNotice(notice);
  }
}

/** Return any failure as one of ours; what an application's own code throws counts as trouble on the way. */
function khalaError(error: unknown): KhalaError {
  if (error instanceof KhalaError) return error;
  return new Unavailable(error instanceof Error ? error.message : String(error));
}
