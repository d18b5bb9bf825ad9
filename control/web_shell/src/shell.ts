// The frame around a run: name, connection, person, and the list of runs.

import { count, h, icon, put, setAttribute, setText } from "./dom.ts";
import { codeLink } from "./notice.ts";
import { runTitle, type RunList } from "./runs.ts";
import type { Theme } from "./theme.ts";

/** How the stream is, in the words of the bar. */
export interface LinkState {
  readonly phase: "live" | "connecting" | "down" | "cut" | "idle";
  readonly words: string;
}

const THEME_ICONS: Readonly<Record<Theme, string>> = {
  system: "M2.5 3.5h11v7.5h-11zM6 13.5h4",
  dark: "M13 9.6A5.6 5.6 0 0 1 6.4 3a5.6 5.6 0 1 0 6.6 6.6z",
  light: "M8 5.2a2.8 2.8 0 1 0 0 5.6a2.8 2.8 0 0 0 0-5.6zM8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3",
};

export interface ShellActions {
  theme(): void;
  signOut(): void;
}

export class Shell {
  readonly element: HTMLElement;
  readonly main = h("main", { class: "main" });
  readonly #runs = h("nav", { class: "runs", "aria-label": "Runs" });
  readonly #link = h("span", { class: "link", role: "status" });
  readonly #words = h("span");
  readonly #who = h("span", { class: "who" });
  readonly #out: HTMLElement;
  readonly #theme: HTMLButtonElement;
  readonly #rows = new Map<string, HTMLAnchorElement>();
  readonly #list = h("ul");

  constructor(actions: ShellActions) {
    this.#theme = h("button", { class: "quiet", type: "button", click: () => actions.theme() });
    this.#out = h("button", { class: "quiet", type: "button", click: () => actions.signOut() }, "Sign out");
    this.#link.append(h("span", { class: "dot" }), this.#words);
    this.element = h(
      "div",
      { class: "shell", "data-view": "alone" },
      h(
        "header",
        { class: "bar" },
        h("a", { class: "brand", href: "#/" }, "Khala"),
        this.#link,
        this.#who,
        this.#out,
        this.#theme,
      ),
      this.#runs,
      this.main,
    );
    put(this.#runs, h("h2", {}, "Runs"), this.#list);
    this.showPerson("");
  }

  showLink(state: LinkState): void {
    setAttribute(this.#link, "data-phase", state.phase);
    setText(this.#words, state.words);
  }

  showPerson(login: string): void {
    setText(this.#who, login);
    this.#out.hidden = login === "";
  }

  showTheme(theme: Theme): void {
    put(this.#theme, icon(THEME_ICONS[theme]));
    const name = `Colours: ${theme === "system" ? "as the system" : theme}`;
    setAttribute(this.#theme, "aria-label", name);
    setAttribute(this.#theme, "title", name);
  }

  /** Show the runs; those that are shown already are changed in place, so that focus stays. */
  showRuns(runs: RunList, current: string): void {
    this.element.dataset["view"] = current === "" ? "list" : "run";
    const wanted = runs.sorted();
    for (const [id, row] of this.#rows) {
      if (runs.find(id) !== undefined) continue;
      row.parentElement?.remove();
      this.#rows.delete(id);
    }
    wanted.forEach((run, index) => {
      let row = this.#rows.get(run.id);
      if (row === undefined) {
        row = h(
          "a",
          { class: "run", href: `#/run/${run.id}` },
          h("span", { class: "dot" }),
          h("span", { class: "name" }),
          h("span", { class: "size" }),
          h("span", { class: "state" }),
        );
        this.#rows.set(run.id, row);
        this.#list.insertBefore(h("li", {}, row), this.#list.children[index] ?? null);
      }
      const [, name, size, state] = row.children;
      if (name) setText(name, runTitle(run));
      if (size) setText(size, count(run.headSeq));
      if (state) setText(state, run.state);
      setAttribute(row, "data-state", run.state);
      setAttribute(row, "aria-current", run.id === current ? "page" : null);
    });
  }
}

/** A page with one thing to say, and at most one thing to do. */
export function blank(
  title: string,
  words: string,
  more: { code?: string; lines?: readonly string[]; action?: readonly [string, string | (() => void)] } = {},
): HTMLElement {
  const action = more.action;
  const button =
    action === undefined
      ? null
      : typeof action[1] === "string"
        ? h("a", { class: "solid", href: action[1] }, action[0])
        : h("button", { class: "solid", type: "button", click: action[1] }, action[0]);
  return h(
    "section",
    { class: "blank" },
    h("h1", { tabindex: -1 }, title),
    h("p", {}, words),
    more.lines === undefined ? null : h("pre", {}, more.lines.join("\n")),
    button,
    more.code === undefined ? null : codeLink(more.code),
  );
}
