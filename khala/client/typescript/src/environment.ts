/**
 * What the ring needs of its surroundings: time, chance, sockets, hashes. Tests bring their own.
 */

import { type Digest, subtleDigest } from "./chain.ts";
import type { Random } from "./core/backoff.ts";

/** The part of WebSocket that the link uses. */
export interface Socket {
  onopen: ((event: Event) => void) | null;
  onmessage: ((event: MessageEvent) => void) | null;
  onclose: ((event: CloseEvent) => void) | null;
  readonly protocol: string;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

export interface Environment {
  /** Monotonic milliseconds. */
  nowMs(): number;
  /** Call `callback` in `delayMs`; the returned function cancels it. */
  schedule(callback: () => void, delayMs: number): () => void;
  readonly random: Random;
  openSocket(url: string, subprotocol: string): Socket;
  readonly digest: Digest;
  /**
   * Call `callback` whenever the surroundings suggest that trying again now may succeed: the browser
   * says online, or the page becomes visible. A hint; nothing depends on it.
   */
  onHint(callback: () => void): () => void;
}

/** Return the environment of a page (or of Node, where there are no hints). */
export function browserEnvironment(): Environment {
  return {
    nowMs: () => performance.now(),
    schedule: (callback, delayMs) => {
      const timer = setTimeout(callback, delayMs);
      return () => clearTimeout(timer);
    },
    random: Math.random,
    openSocket: (url, subprotocol) => new WebSocket(url, subprotocol),
    digest: subtleDigest,
    onHint: (callback) => {
      const onVisible = (): void => {
        if (document.visibilityState === "visible") callback();
      };
      globalThis.addEventListener?.("online", callback);
      globalThis.document?.addEventListener("visibilitychange", onVisible);
      return () => {
        globalThis.removeEventListener?.("online", callback);
        globalThis.document?.removeEventListener("visibilitychange", onVisible);
      };
    },
  };
}
