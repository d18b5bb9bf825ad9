// The topics that the page follows, through the client library: one connection, one store, one retry owner.
//
// A run is kept in IndexedDB with its cursor: what was seen is shown at once after a reload, and only what follows
// it is asked for. The list of runs is not kept; it is read anew whenever its topic has become live.

import { Khala, type KhalaEvent, type Notice } from "../../../khala/client/typescript/src/index.ts";
import { KhalaError, Unavailable } from "../../../khala/client/typescript/src/errors.ts";
import type * as m from "../../../khala/client/typescript/src/gen/messages.ts";
import type { Person, Session } from "./session.ts";

export interface Handlers {
  event(event: KhalaEvent): void;
  notice(notice: Notice): void;
  /** It is over, and will not come back by itself. */
  end(error: Error): void;
}

export interface Feed {
  stop(): void;
}

export class Feeds {
  readonly #khala: Khala;
  readonly #session: Session;

  constructor(session: Session, person: Person) {
    this.#session = session;
    this.#khala = new Khala({
      getBearer: () => session.accessToken(),
      deviceId: session.deviceId,
      namespace: person.userId,
    });
  }

  /** Follow a run from its first event, or from where this browser stands, whatever its length. */
  followRun(topic: string, handlers: Handlers): Feed {
    return this.#follow(topic, handlers, { after: "saved", withSaved: true, historyByPages: true });
  }

  /** Follow what happens from now on. */
  followNews(topic: string, handlers: Handlers): Feed {
    return this.#follow(topic, handlers, { after: "now" });
  }

  /** Return a page of this person's runs, newest first. */
  listRuns(pageToken: string): Promise<m.ListRunsResponse> {
    return this.#http().listRuns(pageToken);
  }

  /** Return when the events of a run were committed, milliseconds, in order: frames do not carry it. */
  async readTimes(runId: string, head: number): Promise<number[]> {
    const times: number[] = [];
    for (let after = 0n; after < BigInt(head);) {
      const { events } = await this.#http().readEvents(runId, after);
      const last = events.at(-1);
      if (last === undefined) break;
      for (const event of events) times.push(Number(event.committed_at_us) / 1000);
      after = last.seq;
    }
    return times;
  }

  cut(): void {
    this.#khala.cutNetwork();
  }

  /** Undo a cut; where there is none, try at once what waits for its next attempt. */
  restore(): void {
    this.#khala.restoreNetwork();
  }

  /** Forget what this browser keeps of a topic, or of all. */
  forget(topic: string | null): Promise<void> {
    return this.#khala.forget(topic);
  }

  close(): Promise<void> {
    return this.#khala.close();
  }

  #http(): NonNullable<Khala["http"]> {
    if (this.#session.isCut || this.#khala.http === null) throw new Unavailable();
    return this.#khala.http;
  }

  #follow(topic: string, handlers: Handlers, how: Parameters<Khala["subscribe"]>[1]): Feed {
    let isStopped = false;
    const subscription = this.#khala.subscribe(topic, {
      ...how,
      onNotice: (notice) => {
        if (!isStopped) handlers.notice(notice);
      },
    });
    const take = async (): Promise<void> => {
      try {
        for await (const event of subscription) {
          if (isStopped) return;
          handlers.event(event);
        }
      } catch (error) {
        // What is no refusal is a defect of the page: whoever looks for it finds it in the browser's console.
        if (!(error instanceof KhalaError)) console.error(error);
        if (!isStopped) handlers.end(error instanceof Error ? error : new Error(String(error)));
      }
    };
    void take();
    return {
      stop: () => {
        isStopped = true;
        void subscription.close();
      },
    };
  }
}
