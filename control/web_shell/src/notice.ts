// The strip under a run's name: what has happened to the stream, in words, with what one can do about it.

import { reasonCode } from "../../../khala/client/typescript/src/core/reason_codes.ts";
import { count, h, plural, put, setText } from "./dom.ts";

export interface Notice {
  readonly tone: "plain" | "good" | "warn" | "bad";
  readonly words: string;
  /** What changes by the second; not read out each time. */
  readonly ticking?: string;
  /** Numbers that prove it: [number, what it counts]. */
  readonly ledger?: readonly (readonly [string, string])[];
  /** Reason code of the registry, for whoever looks it up. */
  readonly code?: string;
  readonly actions?: readonly (readonly [string, () => void])[];
}

/** What a time without a connection has cost, counted from what was applied. */
export interface Outage {
  readonly seconds: number;
  /** Frames of this run that were committed meanwhile and have been applied now. */
  readonly received: number;
  /** Frames that the head says exist and that were not applied: 0, or a defect. */
  readonly lost: number;
  /** Newest position at which our chain was compared with the authority's and was equal. */
  readonly verifiedSeq: number;
}

/** The receipt after an outage. */
export function receipt(outage: Outage, dismiss: () => void): Notice {
  return {
    tone: outage.lost === 0 ? "good" : "bad",
    words: `Back after ${duration(outage.seconds)}.`,
    ledger: [
      [count(outage.received), `frame${outage.received === 1 ? "" : "s"} caught up`],
      [count(outage.lost), "lost"],
      ["chain verified", `to ${count(outage.verifiedSeq)}`],
    ],
    actions: [["Dismiss", dismiss]],
  };
}

/** A reason code, as a link to the page that every Khala serves about it. */
export function codeLink(code: string): HTMLElement {
  const href = reasonCode(code)?.docs ?? "/docs/codes";
  return h("a", { class: "code", href, target: "_blank", rel: "noopener" }, h("code", {}, code));
}

/** 0.84 as "0.8 seconds", 75 as "1 minute". */
export function duration(seconds: number): string {
  if (seconds < 59.5) return `${seconds < 9.95 ? seconds.toFixed(1) : Math.round(seconds)} seconds`;
  return plural(Math.round(seconds / 60), "minute");
}

export class NoticeView {
  readonly element = h("div", { class: "notice", role: "status" });
  readonly #ticking = h("span", { "aria-hidden": "true" });
  #shown = "";

  show(notice: Notice | null): void {
    setText(this.#ticking, notice?.ticking === undefined ? "" : ` ${notice.ticking}`);
    const key = notice === null ? "" : JSON.stringify([notice.tone, notice.words, notice.ledger, notice.code]);
    if (key === this.#shown) return;
    this.#shown = key;
    if (notice === null) {
      put(this.element);
      return;
    }
    this.element.dataset["tone"] = notice.tone;
    const ledger = notice.ledger === undefined ? null : h("span", { class: "ledger" });
    for (const [value, noun] of notice.ledger ?? []) ledger?.append(h("span", {}, h("b", {}, value), ` ${noun}`));
    put(
      this.element,
      h("span", { class: "words" }, notice.words, this.#ticking),
      ledger,
      notice.code === undefined ? null : codeLink(notice.code),
      ...(notice.actions ?? []).map(([name, act]) =>
        h("button", { class: "outline", type: "button", click: () => act() }, name),
      ),
    );
  }
}
