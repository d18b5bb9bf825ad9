// The bar below the timeline: play, scrub, speed, back to live, and a map of what happened where.

import { clock, count, h, icon, put, setAttribute, setText } from "./dom.ts";
import { type Player, SPEEDS } from "./player.ts";
import type { Item, ItemType } from "./timeline.ts";

const PLAY = "M5 3.5v9l7.5-4.5z";
const PAUSE = "M5.5 3.5v9M10.5 3.5v9";
// What stands out on the map; everything else is a quiet tick.
const MARKS: Readonly<Partial<Record<ItemType, string>>> = {
  thought: "--k-thought",
  action: "--k-action",
  message: "--k-message",
  tool: "--k-tool",
  error: "--bad",
};

export interface TravelActions {
  seek(position: number): void;
  toggle(): void;
  live(): void;
  speed(value: number): void;
}

export class TravelView {
  readonly element: HTMLElement;
  readonly #play: HTMLButtonElement;
  readonly #slider: HTMLInputElement;
  readonly #speed: HTMLSelectElement;
  readonly #live: HTMLButtonElement;
  readonly #where = h("span", { class: "where" });
  readonly #map = h("canvas", { "aria-hidden": "true" });
  #drawn = "";

  constructor(actions: TravelActions) {
    this.#play = h("button", { class: "quiet play", type: "button", click: () => actions.toggle() });
    this.#slider = h("input", {
      type: "range",
      min: 0,
      max: 0,
      value: 0,
      step: 1,
      "aria-label": "Position in the run",
      input: () => actions.seek(Number(this.#slider.value)),
    });
    this.#speed = h("select", {
      "aria-label": "Speed",
      change: () => actions.speed(SPEEDS[this.#speed.selectedIndex] ?? 1),
    });
    for (const speed of SPEEDS) this.#speed.append(h("option", {}, speed === Infinity ? "max" : `${speed}×`));
    this.#live = h("button", { class: "outline live", type: "button", click: () => actions.live() }, "Live");
    this.element = h(
      "footer",
      { class: "travel", "aria-label": "Time travel" },
      this.#play,
      h("div", { class: "track" }, this.#map, this.#slider),
      this.#where,
      this.#speed,
      this.#live,
    );
  }

  show(player: Player, items: readonly Item[]): void {
    const isPlaying = player.mode === "playing";
    if (this.#play.dataset["mode"] !== player.mode) {
      this.#play.dataset["mode"] = player.mode;
      put(this.#play, icon(isPlaying ? PAUSE : PLAY));
      const name = isPlaying ? "Pause" : player.mode === "live" ? "Play from the beginning" : "Play";
      setAttribute(this.#play, "aria-label", name);
      setAttribute(this.#play, "title", name);
    }
    setAttribute(this.#slider, "max", String(player.head));
    if (Number(this.#slider.value) !== player.shown) this.#slider.value = String(player.shown);
    this.#slider.style.setProperty("--done", `${player.head === 0 ? 100 : (100 * player.shown) / player.head}%`);
    const at = player.timesKnown > 0 && player.mode !== "live" ? `${clock(player.offsetOf(player.shown))} · ` : "";
    setText(this.#where, `${at}${count(player.shown)} of ${count(player.head)}`);
    setAttribute(this.#slider, "aria-valuetext", `Event ${player.shown} of ${player.head}`);
    setAttribute(this.#live, "aria-pressed", String(player.mode === "live"));
    this.#draw(player.head, items);
  }

  /** Colours have changed. */
  redraw(): void {
    this.#drawn = "";
  }

  #draw(head: number, items: readonly Item[]): void {
    const scale = window.devicePixelRatio || 1;
    const width = Math.round(this.#map.clientWidth * scale);
    const height = Math.round(this.#map.clientHeight * scale);
    const state = `${width} ${height} ${head} ${items.length}`;
    if (state === this.#drawn || width === 0) return;
    this.#drawn = state;
    this.#map.width = width;
    this.#map.height = height;
    const context = this.#map.getContext("2d");
    if (context === null || head === 0) return;
    const style = getComputedStyle(document.documentElement);
    const quiet = style.getPropertyValue("--line");
    const colours = new Map(Object.entries(MARKS).map(([type, name]) => [type, style.getPropertyValue(name)]));
    const tick = Math.max(scale, Math.min(3 * scale, width / head));
    for (const item of items) {
      const colour = colours.get(item.type);
      const tall = item.isFailed || item.type === "error" ? 1 : colour === undefined ? 0.3 : 0.62;
      context.fillStyle = (item.isFailed ? colours.get("error") : colour) ?? quiet;
      const x = ((item.first - 0.5) / head) * (width - tick);
      context.fillRect(x, height * (1 - tall), tick, height * tall);
    }
  }
}
