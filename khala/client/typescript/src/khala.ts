/**
 * The client of a page: follow topics of one Khala, as one user on one device.
 *
 *     const khala = new Khala({ url, getToken });
 *     for await (const event of khala.subscribe(topic, { after: "saved" })) show(event);
 */

import { callPage } from "./callbacks.ts";
import { chainStart } from "./chain.ts";
import type { After, Cursor, FromWord } from "./core/cursor.ts";
import { loadDeviceId } from "./device.ts";
import { browserEnvironment, type Environment } from "./environment.ts";
import { KhalaError } from "./errors.ts";
import { HistoryPages, type ReadPage } from "./history.ts";
import { type GetBearer, KhalaHttp } from "./http.ts";
import { SyncLink } from "./link.ts";
import type { Notice, Status } from "./notices.ts";
import { MemoryStore } from "./store/memory.ts";
import { openBrowserStore } from "./store/browser.ts";
import type { Store } from "./store/store.ts";
import { type Start, Subscription } from "./subscription.ts";
import { VERSION } from "./version.ts";

const RUN_TOPIC = /^run:(run_[0-7][0-9a-hjkmnp-tv-z]{25}):events$/;

/**
 * Returns a sync token for exactly these topics and this device: from your own backend (which asks
 * `POST /api/sync/token` with its service key). Called for every connection and before a token expires.
 * Throw a KhalaError that is not retryable (ReauthRequired, Forbidden) to end, anything else to be asked again.
 */
export type GetToken = (topics: readonly string[], deviceId: string) => string | Promise<string>;

export interface KhalaOptions {
  /** Origin of the Khala; the page's own by default. */
  readonly url?: string;
  readonly getToken?: GetToken;
  /** Access token of a signed-in session: mints tokens if `getToken` is not given, and reads history. */
  readonly getBearer?: GetBearer;
  /** Default: kept in localStorage. */
  readonly deviceId?: string;
  /**
   * Whose events the browser keeps. Give the signed-in user's id where several people use one browser
   * profile; each has their own cursors and events then.
   */
  readonly namespace?: string;
  /** Default: IndexedDB, or memory where the browser refuses it. */
  readonly store?: Store;
  readonly environment?: Environment;
}

export interface SubscribeOptions {
  /**
   * "saved" (the default): where the store stands, else `orElse`. Otherwise a cursor,
   * "beginning", "earliest" (the oldest retained) or "now"; such a follower remembers nothing, unless it
   * is given a store.
   */
  readonly after?: Cursor | FromWord | "saved";
  /** With "saved", where to begin if nothing is kept; "beginning" if it is left out. */
  readonly orElse?: FromWord;
  /** With "saved": first give the events that the store has kept, then what follows them. */
  readonly withSaved?: boolean;
  /** Instead of the client's own (for "saved") or none (otherwise). */
  readonly store?: Store;
  /** Read what is no longer replayed over HTTP first (runs only; needs `getBearer`), instead of throwing StaleCursor. */
  readonly historyByPages?: boolean;
  readonly onStatus?: (status: Status) => void;
  readonly onNotice?: (notice: Notice) => void;
}

export class Khala {
  readonly deviceId: string;
  /** Control and runtime over HTTP; only with `getBearer`. */
  readonly http: KhalaHttp | null;
  private readonly env: Environment;
  private readonly link: SyncLink;
  private readonly subscriptions = new Set<Subscription>();
  private readonly noticeListeners = new Set<(notice: Notice) => void>();
  private readonly store: Store;

  constructor(options: KhalaOptions) {
    const origin = originOf(options.url);
    this.env = options.environment ?? browserEnvironment();
    this.deviceId = options.deviceId ?? loadDeviceId();
    this.http = options.getBearer ? new KhalaHttp(origin, options.getBearer) : null;
    this.store =
      options.store ??
      openBrowserStore(options.namespace ?? "default", (reason) => this.tell({ type: "store_degraded", reason }));
    const mint = mintOf(options.getToken, this.http, this.deviceId);
    const identity = { deviceId: this.deviceId, clientBuildId: VERSION };
    this.link = new SyncLink(`${origin.replace(/^http/, "ws")}/sync/v1/ws`, mint, identity, this.env);
  }

  /** False if the browser keeps nothing: cursors and events end with the page. Known after the first use. */
  get isPersistent(): boolean {
    return this.store.isPersistent;
  }

  /**
   * Follow a topic, in order, without gap or repeat, across reconnects and reloads.
   *
   * @throws (while iterating) StaleCursor, ReauthRequired, UpgradeRequired, Forbidden; RangeError if this
   *   client follows the topic already.
   */
  subscribe(topic: string, options: SubscribeOptions = {}): Subscription {
    const after = options.after ?? "saved";
    const store = options.store ?? (after === "saved" ? this.store : new MemoryStore(false));
    const { onNotice } = options;
    const subscription: Subscription = new Subscription({
      topic,
      link: this.link,
      store,
      start: () => this.startOf(topic, after, options.orElse ?? "beginning", store),
      pages: options.historyByPages ? this.historyOf(topic) : null,
      withSaved: options.withSaved ?? false,
      onStatus: options.onStatus ?? null,
      onNotice: onNotice ?? null,
      onClose: () => {
        this.subscriptions.delete(subscription);
        if (onNotice) this.noticeListeners.delete(onNotice);
      },
    });
    this.subscriptions.add(subscription);
    if (onNotice) this.noticeListeners.add(onNotice);
    return subscription;
  }

  /** Drop what the browser has kept of a topic, or of all: for signing out, or to begin anew. */
  async forget(topic: string | null = null): Promise<void> {
    await this.store.forget(topic);
  }

  /** Behave as if the network were gone, until `restoreNetwork`: to show what resuming does. */
  cutNetwork(): void {
    this.link.cut();
  }

  restoreNetwork(): void {
    this.link.restore();
  }

  /** End every subscription and the connection. */
  async close(): Promise<void> {
    try {
      await Promise.all([...this.subscriptions].map((subscription) => subscription.close()));
    } finally {
      this.link.close();
    }
  }

  private async startOf(topic: string, after: After | "saved", orElse: FromWord, store: Store): Promise<Start> {
    const zeroChain = await chainStart(topic, this.env.digest);
    if (after !== "saved") return { after, isStored: false, zeroChain };
    const saved = await store.loadCursor(topic);
    return { after: saved ?? orElse, isStored: saved !== null, zeroChain };
  }

  private historyOf(topic: string): HistoryPages | null {
    const runId = RUN_TOPIC.exec(topic)?.[1];
    const { http } = this;
    if (runId === undefined || http === null) return null;
    const read: ReadPage = (afterSeq) => http.readEvents(runId, afterSeq);
    return new HistoryPages(read, this.env);
  }

  private tell(notice: Notice): void {
    for (const listener of this.noticeListeners) callPage(listener, notice);
  }
}

function originOf(url: string | undefined): string {
  const origin = (url ?? globalThis.location?.origin ?? "").replace(/\/+$/, "");
  if (!/^https?:\/\//.test(origin))
    throw new RangeError("url: the origin of a Khala, for example https://khala.example");
  return origin;
}

function mintOf(
  getToken: GetToken | undefined,
  http: KhalaHttp | null,
  deviceId: string,
): (topics: readonly string[]) => Promise<string> {
  if (getToken) return async (topics) => getToken(topics, deviceId);
  if (http) return (topics) => http.mintSyncToken(topics, deviceId);
  throw new KhalaError("unauthenticated", { message: "give getToken or getBearer" });
}
