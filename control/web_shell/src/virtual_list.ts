// Shows the rows of a long list that are in sight, and no others: 20,000 events cost about forty elements.
//
// Rows lie in the flow between two spacers, so reading order is document order. A height is an estimate until
// its row has been seen; where a row above the one in view turns out otherwise, the scroll position moves with
// it, so that what is read does not jump. A list that stands at its end stays there as rows are added.

import { h } from "./dom.ts";
import { Heights } from "./heights.ts";

// Rows beyond the edges, in CSS pixels: scrolling shows them before the next frame is drawn.
const OVERSCAN = 400;
// Nearer to the end than this counts as standing at it.
const END_SLACK = 24;

export interface Rows {
  /** How many rows there are. */
  length(): number;
  /** Likely height of one that has not been seen. */
  estimate(index: number): number;
  /** Changes when the row must be made again. */
  version(index: number): string;
  make(index: number): HTMLElement;
}

export class VirtualList {
  readonly element: HTMLElement;
  readonly #rows: Rows;
  readonly #body = h("div", { class: "rows", role: "feed", "aria-label": "Timeline" });
  readonly #top = h("div", { class: "spacer", "aria-hidden": "true" });
  readonly #bottom = h("div", { class: "spacer", "aria-hidden": "true" });
  readonly #shown = new Map<number, { element: HTMLElement; version: string }>();
  readonly #heights = new Heights();
  readonly #onEnd: (isAtEnd: boolean) => void;
  #isAtEnd = true;
  #isQueued = false;
  #width = 0;
  #lastTop = 0;

  constructor(rows: Rows, onEnd: (isAtEnd: boolean) => void) {
    this.#rows = rows;
    this.#onEnd = onEnd;
    this.element = h("div", { class: "scroller", tabindex: 0, "aria-label": "Timeline of the run", role: "region" });
    this.element.append(this.#top, this.#body, this.#bottom);
    this.element.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#resized()).observe(this.element);
  }

  get isAtEnd(): boolean {
    return this.#isAtEnd;
  }

  /** The rows have changed; drawn before the next frame, once however often this is called. */
  update(): void {
    if (this.#isQueued) return;
    this.#isQueued = true;
    requestAnimationFrame(() => {
      this.#isQueued = false;
      this.#draw();
    });
  }

  /** Forget every row: another list. */
  reset(): void {
    this.#heights.resize(0, () => 0);
    for (const { element } of this.#shown.values()) element.remove();
    this.#shown.clear();
    this.goToEnd();
  }

  goToEnd(): void {
    this.#setAtEnd(true);
    this.update();
  }

  #setAtEnd(isAtEnd: boolean): void {
    if (isAtEnd === this.#isAtEnd) return;
    this.#isAtEnd = isAtEnd;
    this.#onEnd(isAtEnd);
  }

  #scrolled(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    // News of a scroll come late: rows may have been added and the room may have shrunk since. So far from the end
    // alone means nothing; only a reader who moved up has left it.
    if (scrollHeight - clientHeight - scrollTop < END_SLACK) this.#setAtEnd(true);
    else if (scrollTop < this.#lastTop - 1) this.#setAtEnd(false);
    this.#lastTop = scrollTop;
    this.update();
  }

  #resized(): void {
    // Another width wraps every text anew; heights out of sight are estimates again.
    if (this.element.clientWidth !== this.#width) {
      this.#width = this.element.clientWidth;
      this.#heights.resize(0, () => 0);
    }
    this.update();
  }

  #draw(): void {
    const length = this.#rows.length();
    this.#heights.resize(length, (index) => this.#rows.estimate(index));
    // Measuring may show that more rows fit, or fewer; it settles in two rounds, and a third would be a loop.
    for (let round = 0; round < 3; round += 1) {
      if (this.#isAtEnd) this.element.scrollTop = this.element.scrollHeight;
      const [first, end] = this.#range(length);
      this.#place(first, end);
      if (!this.#measure(first, end)) break;
    }
    if (this.#isAtEnd) this.element.scrollTop = this.element.scrollHeight;
    this.#lastTop = this.element.scrollTop;
  }

  #range(length: number): [number, number] {
    if (length === 0) return [0, 0];
    const height = this.element.clientHeight;
    const top = this.#isAtEnd ? Math.max(0, this.#heights.total - height) : this.element.scrollTop;
    const first = this.#heights.find(Math.max(0, top - OVERSCAN));
    return [first, this.#heights.find(top + height + OVERSCAN) + 1];
  }

  #place(first: number, end: number): void {
    for (const [index, { element }] of this.#shown) {
      if (index >= first && index < end) continue;
      element.remove();
      this.#shown.delete(index);
    }
    let next: Element | null = this.#body.firstElementChild;
    for (let index = first; index < end; index += 1) {
      const version = this.#rows.version(index);
      const known = this.#shown.get(index);
      if (known !== undefined && known.version === version) {
        if (next === known.element) next = known.element.nextElementSibling;
        else this.#body.insertBefore(known.element, next);
        continue;
      }
      const element = this.#rows.make(index);
      element.setAttribute("aria-posinset", String(index + 1));
      element.setAttribute("aria-setsize", String(this.#rows.length()));
      if (known === undefined) this.#body.insertBefore(element, next);
      else {
        if (next === known.element) next = known.element.nextElementSibling;
        const hasFocus = known.element.contains(document.activeElement);
        known.element.replaceWith(element);
        // The button that was pressed is a new one now; the keyboard stays where it was.
        if (hasFocus) element.querySelector("button")?.focus();
      }
      this.#shown.set(index, { element, version });
    }
    this.#space(first, end);
  }

  #space(first: number, end: number): void {
    this.#top.style.height = `${this.#heights.before(first)}px`;
    this.#bottom.style.height = `${this.#heights.total - this.#heights.before(end)}px`;
  }

  #measure(first: number, end: number): boolean {
    const anchor = this.#heights.find(this.element.scrollTop);
    let moved = 0;
    let isChanged = false;
    for (let index = first; index < end; index += 1) {
      const height = this.#shown.get(index)?.element.getBoundingClientRect().height;
      if (height === undefined || Math.abs(height - this.#heights.at(index)) < 0.5) continue;
      if (index < anchor) moved += height - this.#heights.at(index);
      this.#heights.set(index, height);
      isChanged = true;
    }
    if (!isChanged) return false;
    this.#space(first, end);
    if (moved !== 0 && !this.#isAtEnd) this.element.scrollTop += moved;
    return true;
  }
}
