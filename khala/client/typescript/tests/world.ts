/**
 * The surroundings of a client under test: a clock that only tests move, and a network that can do harm.
 */

import type { Random } from "../src/core/backoff.ts";
import type { Environment, Socket } from "../src/environment.ts";
import { type LogModel, NodeModel, sha256 } from "./node_model.ts";

/** Let everything that is ready run: promises, and promises that they made. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** Numbers that repeat with their seed (mulberry32). */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The client's end of a connection. */
export class FakeSocket implements Socket {
  onopen: Socket["onopen"] = null;
  onmessage: Socket["onmessage"] = null;
  onclose: Socket["onclose"] = null;
  readonly protocol = "khala.v1.json";
  isGone = false;
  closedWith: number | null = null;

  constructor(
    private readonly world: World,
    readonly node: NodeModel,
  ) {}

  send(text: string): void {
    if (this.isGone) return;
    for (const answer of this.world.answer(this, text)) this.world.deliver(this, answer);
  }

  close(code = 1000): void {
    this.closedWith ??= code;
    this.world.end(this, 1000);
  }
}

export class World implements Environment {
  now = 1_000;
  readonly logs = new Map<string, LogModel>();
  readonly sockets: FakeSocket[] = [];
  readonly openedAtMs: number[] = [];
  isReachable = true;
  /** What becomes of the messages that a node sends at once: may drop, repeat, reorder, forge. */
  path: (texts: readonly string[]) => readonly string[] = (texts) => texts;
  /** What a node answers; null: as the model does. */
  answers: ((text: string, socket: FakeSocket) => readonly string[] | null) | null = null;
  random: Random = () => 0.5;
  digest: Environment["digest"] = async (bytes) => sha256(bytes);
  private readonly timers = new Set<{ atMs: number; callback: () => void }>();
  private hint = (): void => {};

  constructor(...logs: LogModel[]) {
    for (const log of logs) this.logs.set(log.topic, log);
  }

  // -- Environment ------------------------------------------------------------------------------

  nowMs = (): number => this.now;

  schedule = (callback: () => void, delayMs: number): (() => void) => {
    const timer = { atMs: this.now + delayMs, callback };
    this.timers.add(timer);
    return () => void this.timers.delete(timer);
  };

  openSocket = (_url?: string): Socket => {
    const socket = new FakeSocket(this, new NodeModel(this.logs, this.nowMs));
    this.sockets.push(socket);
    this.openedAtMs.push(this.now);
    this.schedule(() => {
      if (socket.isGone) return;
      if (this.isReachable) socket.onopen?.({} as Event);
      else this.end(socket, 1006);
    }, 0);
    return socket;
  };

  onHint = (callback: () => void): (() => void) => {
    this.hint = callback;
    return () => (this.hint = () => {});
  };

  // -- for tests -----------------------------------------------------------------------------------

  get socket(): FakeSocket {
    return this.sockets.at(-1)!;
  }

  /** Move the clock, and run what becomes due in its order. */
  async advance(ms: number): Promise<void> {
    const until = this.now + ms;
    for (;;) {
      await settle();
      const due = [...this.timers].filter((timer) => timer.atMs <= until).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.timers.delete(due);
      this.now = Math.max(this.now, due.atMs);
      due.callback();
    }
    this.now = until;
    await settle();
  }

  answer(socket: FakeSocket, text: string): readonly string[] {
    const answers = this.answers?.(text, socket) ?? null;
    const said = socket.node.receive(text);
    return this.path(answers ?? said);
  }

  /** Let a message arrive, after everything that is on the way. */
  deliver(socket: FakeSocket, text: string): void {
    this.schedule(() => {
      if (!socket.isGone) socket.onmessage?.({ data: text } as MessageEvent);
    }, 0);
  }

  get openSockets(): readonly FakeSocket[] {
    return this.sockets.filter((socket) => !socket.isGone);
  }

  /** Let what was committed go out on every connection, and arrive. */
  async publish(): Promise<void> {
    for (const socket of this.openSockets) {
      for (const text of this.path(socket.node.publish())) this.deliver(socket, text);
    }
    await this.advance(0);
  }

  /** Let a heartbeat arrive on every connection. */
  async beat(): Promise<void> {
    for (const socket of this.openSockets) this.deliver(socket, socket.node.heartbeat());
    await this.advance(0);
  }

  async say(...texts: string[]): Promise<void> {
    for (const text of texts) this.deliver(this.socket, text);
    await this.advance(0);
  }

  /** End a connection: what is on the way is lost; 1006: without a close frame. */
  end(socket: FakeSocket, code: number): void {
    if (socket.isGone) return;
    socket.isGone = true;
    this.schedule(() => socket.onclose?.({ code } as CloseEvent), 0);
  }

  async cutOff(code = 1006): Promise<void> {
    this.end(this.socket, code);
    await this.advance(0);
  }

  /** Hold every hash back, until the returned function is called. */
  holdHashes(): () => void {
    const { digest } = this;
    let release = (): void => {};
    const released = new Promise<void>((resolve) => (release = resolve));
    this.digest = async (bytes) => {
      await released;
      return digest(bytes);
    };
    return () => {
      this.digest = digest;
      release();
    };
  }

  giveHint(): void {
    this.hint();
  }

  /** What the client has said on the newest connection, by the names of its messages. */
  get said(): readonly string[] {
    return this.socket.node.said.map((message) => Object.keys(message)[0]!);
  }
}
