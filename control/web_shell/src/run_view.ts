// One run: its name and facts, what is to be said, the timeline, and the bar below it.

import { count, h, icon, plural, setAttribute, setText } from "./dom.ts";
import { type Notice, NoticeView } from "./notice.ts";
import type { Player } from "./player.ts";
import type { Timeline } from "./timeline.ts";
import { estimateHeight, makeRow } from "./timeline_view.ts";
import { TravelView } from "./travel_view.ts";
import { VirtualList } from "./virtual_list.ts";

export interface RunFacts {
  readonly title: string;
  readonly state: string;
  readonly events: number;
  /** Newest position at which our chain equalled the authority's. */
  readonly verifiedSeq: number;
  readonly erased: number;
  readonly isCut: boolean;
}

export interface RunActions {
  cut(): void;
  seek(position: number): void;
  toggle(): void;
  live(): void;
  speed(value: number): void;
}

export class RunView {
  readonly elements: readonly HTMLElement[];
  readonly #title = h("h1", { tabindex: -1 });
  readonly #state = h("span");
  readonly #events = h("span");
  readonly #verified = h("span", { class: "verified" });
  readonly #cut: HTMLButtonElement;
  readonly #newest: HTMLButtonElement;
  readonly #notice = new NoticeView();
  readonly #travel: TravelView;
  readonly #list: VirtualList;
  readonly #unfolded = new Map<number, number>();
  #timeline: Timeline | null = null;

  constructor(actions: RunActions) {
    this.#cut = h("button", { class: "outline cut", type: "button", click: () => actions.cut() });
    this.#newest = h(
      "button",
      { class: "outline newest", type: "button", hidden: true, click: () => this.#list.goToEnd() },
      "Newest ↓",
    );
    this.#travel = new TravelView(actions);
    this.#list = new VirtualList(
      {
        length: () => this.#timeline?.items.length ?? 0,
        estimate: (index) => this.#withItem(index, estimateHeight, 40),
        version: (index) =>
          this.#withItem(index, (item) => `${item.first} ${item.size} ${this.#unfolded.get(item.first) ?? 0}`, ""),
        make: (index) => this.#makeRow(index),
      },
      (isAtEnd) => {
        this.#newest.hidden = isAtEnd;
      },
    );
    const head = h(
      "header",
      { class: "head" },
      h("a", { class: "quiet back", href: "#/", "aria-label": "All runs" }, icon("M10 3.5L5.5 8l4.5 4.5")),
      h("div", { class: "names" }, this.#title, h("p", { class: "facts" }, this.#state, this.#events, this.#verified)),
      this.#cut,
    );
    const stage = h("div", { class: "stage" }, this.#list.element, this.#newest);
    this.elements = [head, this.#notice.element, stage, this.#travel.element];
  }

  /** Another timeline: another run, or another moment of this one. */
  setTimeline(timeline: Timeline, isOtherRun: boolean): void {
    this.#timeline = timeline;
    if (!isOtherRun) {
      this.#list.goToEnd();
      return;
    }
    this.#unfolded.clear();
    this.#list.reset();
  }

  showFacts(facts: RunFacts): void {
    setText(this.#title, facts.title);
    setText(this.#state, facts.state);
    setText(this.#events, plural(facts.events, "event"));
    const erased = facts.erased > 0 ? `, ${count(facts.erased)} erased` : "";
    setText(this.#verified, facts.verifiedSeq > 0 ? `chain verified to ${count(facts.verifiedSeq)}${erased}` : "");
    setText(this.#cut, facts.isCut ? "Restore my network" : "Cut my network");
    setAttribute(this.#cut, "aria-pressed", String(facts.isCut));
    this.#cut.classList.toggle("on", facts.isCut);
  }

  showNotice(notice: Notice | null): void {
    this.#notice.show(notice);
  }

  showTravel(player: Player, timeline: Timeline): void {
    this.#travel.show(player, timeline.items);
  }

  coloursChanged(): void {
    this.#travel.redraw();
  }

  update(): void {
    this.#list.update();
  }

  #withItem<T>(index: number, use: (item: Timeline["items"][number]) => T, otherwise: T): T {
    const item = this.#timeline?.items[index];
    return item === undefined ? otherwise : use(item);
  }

  #makeRow(index: number): HTMLElement {
    return this.#withItem(
      index,
      (item) =>
        makeRow(item, (this.#unfolded.get(item.first) ?? 0) % 2 === 1, () => {
          this.#unfolded.set(item.first, (this.#unfolded.get(item.first) ?? 0) + 1);
          this.#list.update();
        }),
      h("article"),
    );
  }
}
