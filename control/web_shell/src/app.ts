// Puts the page together: who is signed in, which runs there are, which one is looked at, and what is shown of it.
// Every change ends in `invalidate`; what is shown is made from the state once per frame.

import {
  Forbidden,
  KhalaError,
  ReauthRequired,
  StaleCursor,
  StoreConflict,
  UpgradeRequired,
} from "../../../khala/client/typescript/src/errors.ts";
import type { Notice as StreamNotice } from "../../../khala/client/typescript/src/notices.ts";
import { put } from "./dom.ts";
import { type Feed, Feeds } from "./feeds.ts";
import {
  chooseRunPage,
  forbiddenPage,
  insecurePage,
  type Link,
  linkState,
  noRunsPage,
  refusedPage,
  runNotice,
  signInPage,
  unavailablePage,
  upgradePage,
} from "./messages.ts";
import { Player } from "./player.ts";
import { noteLook } from "./recent_runs.ts";
import { RunStory } from "./run_story.ts";
import { RunView } from "./run_view.ts";
import { RunList, runTitle, summaryOf } from "./runs.ts";
import { isSignedOut, Session } from "./session.ts";
import type { Settings } from "./settings.ts";
import { Shell } from "./shell.ts";
import { ThemeSwitch } from "./theme.ts";
import { isEnded, stateWord, type Timeline } from "./timeline.ts";

const RETRY_MS = 3_000;
const IDLE_LINK: Link = { phase: "idle", code: "", retryAtMs: 0, error: null };

export class App {
  readonly #settings: Settings;
  readonly #session: Session;
  readonly #theme: ThemeSwitch;
  readonly #shell: Shell;
  readonly #runs = new RunList();
  readonly #player = new Player();
  #feeds: Feeds | null = null;
  #link = IDLE_LINK;
  #story: RunStory | null = null;
  #feed: Feed | null = null;
  #view: RunView | null = null;
  #past: Timeline | null = null;
  #areRunsListed = false;
  #isDirty = false;

  constructor(root: HTMLElement, settings: Settings) {
    this.#settings = settings;
    this.#session = new Session(settings);
    this.#theme = new ThemeSwitch(settings);
    this.#shell = new Shell({
      theme: () => void this.#theme.next().then(() => this.#showTheme()),
      signOut: () => void this.#signOut(),
    });
    put(root, this.#shell.element);
  }

  async start(): Promise<void> {
    await this.#theme.restore();
    this.#showTheme();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#showTheme());
    if (!isSecureContext) {
      put(this.#shell.main, insecurePage());
      return;
    }
    await this.#signIn();
    window.addEventListener("hashchange", () => this.#route());
    // The countdown to the next attempt is the only thing here that time alone changes.
    setInterval(() => this.#story?.phase === "offline" && this.#invalidate(), 1_000);
  }

  // -- who ---------------------------------------------------------------------------------------------

  async #signIn(): Promise<void> {
    for (;;) {
      try {
        if (await this.#session.begin()) break;
        this.#showSignIn(false);
        return;
      } catch (error) {
        if (!(error instanceof KhalaError)) throw error;
        if (!error.retryable) {
          put(this.#shell.main, refusedPage(error, this.#session.signInUrl()));
          return;
        }
        await new Promise<void>((resolve) => {
          put(this.#shell.main, unavailablePage(error, resolve));
          setTimeout(resolve, Math.max(RETRY_MS, error.retryAfterMs));
        });
      }
    }
    const person = this.#session.person;
    if (person === null) return;
    this.#shell.showPerson(person.login);
    this.#feeds = new Feeds(this.#session, person);
    this.#followRuns(this.#feeds, `user:${person.userId}:runs`);
    this.#route();
  }

  async #signOut(): Promise<void> {
    this.#closeRun();
    await this.#feeds?.close();
    await this.#feeds?.forget(null);
    await this.#session.signOut().catch(() => undefined);
    location.hash = "#/";
    location.reload();
  }

  #showSignIn(hasEnded: boolean): void {
    this.#closeRun();
    void this.#feeds?.close();
    this.#feeds = null;
    this.#session.person = null;
    this.#link = IDLE_LINK;
    this.#shell.showPerson("");
    this.#shell.element.dataset["view"] = "alone";
    put(this.#shell.main, signInPage(this.#session.signInUrl(), hasEnded));
    this.#invalidate();
  }

  // -- which runs --------------------------------------------------------------------------------------

  #followRuns(feeds: Feeds, topic: string): void {
    feeds.followNews(topic, {
      event: (event) => {
        const summary = summaryOf(event.data);
        if (summary !== null && this.#runs.put(summary)) this.#invalidate();
      },
      notice: (notice) => {
        this.#noteLink(notice);
        // What happened before this moment is in the list, what happens after it comes by the topic.
        if (notice.type === "live") void this.#listRuns(feeds);
      },
      end: (error) => this.#ended(error),
    });
  }

  async #listRuns(feeds: Feeds): Promise<void> {
    let token = "";
    do {
      let page: Awaited<ReturnType<Feeds["listRuns"]>>;
      try {
        page = await feeds.listRuns(token);
      } catch (error) {
        if (isSignedOut(error)) this.#showSignIn(true);
        return; // the next time that the stream is live lists again
      }
      for (const run of page.runs) {
        const headSeq = Number(run.watermark?.seq ?? 0n);
        this.#runs.put({ id: run.run_id, name: run.name, state: stateWord(run.state), headSeq });
      }
      token = page.next_page_token;
    } while (token !== "" && this.#runs.size < 1_000);
    this.#areRunsListed = true;
    if (this.#story === null) this.#route();
    this.#invalidate();
  }

  #noteLink(notice: StreamNotice): void {
    const offline = { phase: "offline", error: null } as const;
    if (notice.type === "connecting") this.#link = { ...IDLE_LINK, phase: "connecting" };
    else if (notice.type === "live" || notice.type === "connected") this.#link = { ...IDLE_LINK, phase: "live" };
    else if (notice.type === "disconnected") {
      this.#link = { ...offline, code: notice.code, retryAtMs: Date.now() + notice.retryInMs };
    } else return;
    this.#invalidate();
  }

  /** A topic is over. What ends all of them ends the page; what ends one is said where it is shown. */
  #ended(error: Error): void {
    if (error instanceof ReauthRequired) this.#showSignIn(true);
    else if (error instanceof UpgradeRequired) put(this.#shell.main, upgradePage());
    else this.#link = { ...IDLE_LINK, phase: "ended", error };
    this.#invalidate();
  }

  // -- one run -----------------------------------------------------------------------------------------

  #route(): void {
    if (this.#feeds === null) return;
    const id = chosenRun();
    if (id !== "" && id === this.#story?.id) return;
    this.#closeRun();
    if (id !== "") this.#openRun(id);
    else if (this.#areRunsListed) {
      put(this.#shell.main, this.#runs.size === 0 ? noRunsPage() : chooseRunPage());
    } else put(this.#shell.main);
    this.#invalidate();
  }

  #openRun(id: string): void {
    const story = new RunStory(id);
    this.#story = story;
    this.#past = null;
    this.#player.reset();
    this.#view = new RunView({
      cut: () => this.#toggleCut(),
      seek: (position) => this.#travel(() => this.#player.seek(position)),
      toggle: () => void this.#togglePlaying(),
      live: () => this.#travel(() => this.#player.goLive()),
      speed: (value) => this.#travel(() => (this.#player.speed = value)),
    });
    put(this.#shell.main, ...this.#view.elements);
    this.#view.setTimeline(story.timeline, true);
    this.#follow(story);
    void this.#keepFew(id);
  }

  #follow(story: RunStory): void {
    const isShown = (): boolean => this.#story === story;
    this.#feed =
      this.#feeds?.followRun(story.topic, {
        event: (event) => {
          story.apply(event, Date.now());
          if (!isShown()) return;
          this.#player.extend(story.seq);
          if (this.#player.timesKnown > 0) this.#player.addTime(Date.now());
          this.#invalidate();
        },
        notice: (notice) => {
          story.note(notice, Date.now());
          this.#invalidate();
        },
        end: (error) => {
          if (!isShown()) return;
          if (error instanceof StaleCursor && error.reason === "retention_expired" && story.seq === 0) {
            this.#startAgain(story.id);
            return;
          }
          if (error instanceof StoreConflict) {
            // Another tab has forgotten this run, or taken it up anew: what it keeps now is what is true.
            this.#reopen(story.id);
            return;
          }
          story.end(error);
          if (error instanceof Forbidden) {
            this.#closeRun();
            put(this.#shell.main, forbiddenPage());
          } else if (error instanceof ReauthRequired || error instanceof UpgradeRequired) this.#ended(error);
          this.#invalidate();
        },
      }) ?? null;
  }

  /** Storage is bounded: what was not looked at for longest goes. */
  async #keepFew(id: string): Promise<void> {
    const person = this.#session.person;
    if (person === null) return;
    for (const old of await noteLook(this.#settings, person.userId, id)) {
      await this.#feeds?.forget(`run:${old}:events`);
    }
  }

  #closeRun(): void {
    this.#feed?.stop();
    this.#feed = null;
    this.#story = null;
    this.#view = null;
    this.#past = null;
  }

  #startAgain(id: string): void {
    const topic = `run:${id}:events`;
    this.#closeRun();
    void this.#feeds?.forget(topic).then(() => this.#openRun(id));
  }

  // -- network -----------------------------------------------------------------------------------------

  #toggleCut(): void {
    if (this.#feeds === null) return;
    this.#session.isCut = !this.#session.isCut;
    if (this.#session.isCut) {
      if (this.#story !== null) this.#story.outage = null;
      this.#feeds.cut();
    } else this.#feeds.restore();
    this.#invalidate();
  }

  // -- time travel -------------------------------------------------------------------------------------

  #travel(change: () => void): void {
    change();
    this.#showMoment();
  }

  async #togglePlaying(): Promise<void> {
    const story = this.#story;
    if (story === null) return;
    if (this.#player.mode === "playing") {
      this.#travel(() => this.#player.pause());
      return;
    }
    if (this.#player.timesKnown === 0) {
      const times = (await this.#feeds?.readTimes(story.id, story.seq).catch(() => undefined)) ?? [];
      if (this.#story !== story) return;
      // Without times (no network now) every event is due at once: it plays, only without its rhythm.
      this.#player.setTimes(times);
    }
    this.#travel(() => this.#player.play(performance.now()));
    this.#animate();
  }

  #animate(): void {
    requestAnimationFrame((now) => {
      if (this.#player.mode !== "playing" || this.#story === null) return;
      this.#travel(() => this.#player.step(now));
      this.#animate();
    });
  }

  /** Show the timeline at the player's position: further on by what came between, back by folding anew. */
  #showMoment(): void {
    const [story, view] = [this.#story, this.#view];
    if (story === null || view === null) return;
    if (this.#player.mode === "live") {
      if (this.#past !== null) view.setTimeline(story.timeline, false);
      this.#past = null;
    } else if (this.#past === null || this.#past.lastSeq > this.#player.position) {
      this.#past = story.timelineAt(this.#player.position);
      view.setTimeline(this.#past, false);
    } else story.extendTo(this.#past, this.#player.position);
    this.#invalidate();
  }

  // -- showing -----------------------------------------------------------------------------------------

  #showTheme(): void {
    this.#shell.showTheme(this.#theme.theme);
    this.#view?.coloursChanged();
    this.#invalidate();
  }

  #invalidate(): void {
    if (this.#isDirty) return;
    this.#isDirty = true;
    requestAnimationFrame(() => {
      this.#isDirty = false;
      this.#render();
    });
  }

  #render(): void {
    const [story, view] = [this.#story, this.#view];
    this.#shell.showLink(linkState(this.#link, this.#session.isCut));
    if (this.#session.person !== null) this.#shell.showRuns(this.#runs, chosenRun());
    if (story === null || view === null) {
      document.title = "Khala";
      return;
    }
    const listed = this.#runs.find(story.id);
    const title = runTitle({ id: story.id, name: listed?.name || story.timeline.name });
    document.title = `${title} · Khala`;
    const shown = this.#past ?? story.timeline;
    view.showFacts({
      title,
      state: this.#past === null && listed !== undefined && isEnded(listed.state) ? listed.state : shown.state,
      events: story.seq,
      verifiedSeq: story.verifiedSeq,
      erased: story.erased,
      isCut: this.#session.isCut,
    });
    view.showNotice(
      runNotice(story, this.#session.isCut, Date.now(), {
        retry: () => (story.error === null ? this.#feeds?.restore() : this.#reopen(story.id)),
        dismiss: () => {
          story.outage = null;
          this.#invalidate();
        },
        startAgain: () => this.#startAgain(story.id),
      }),
    );
    view.showTravel(this.#player, story.timeline);
    view.update();
  }

  #reopen(id: string): void {
    this.#closeRun();
    this.#openRun(id);
  }
}

/** The run that the address names; empty: the list. */
function chosenRun(): string {
  return /^#\/run\/(run_[0-9a-z]+)$/.exec(location.hash)?.[1] ?? "";
}
