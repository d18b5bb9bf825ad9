// The page's beginning.

import { App } from "./app.ts";
import { Settings } from "./settings.ts";

const root = document.querySelector<HTMLElement>("#app");
if (root !== null) void Settings.open().then((settings) => new App(root, settings).start());
