// Light, dark, or as the system says; the choice is kept in IndexedDB with the device’s id.

import type { Settings } from "./settings.ts";

export type Theme = "system" | "light" | "dark";

const NEXT: Readonly<Record<Theme, Theme>> = { system: "dark", dark: "light", light: "system" };
const KEY = "theme";

export class ThemeSwitch {
  theme: Theme = "system";
  readonly #settings: Settings;

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  async restore(): Promise<void> {
    const kept = await this.#settings.read(KEY);
    this.#set(kept === "light" || kept === "dark" ? kept : "system");
  }

  async next(): Promise<void> {
    this.#set(NEXT[this.theme]);
    await this.#settings.write(KEY, this.theme);
  }

  #set(theme: Theme): void {
    this.theme = theme;
    if (theme === "system") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = theme;
  }
}
