// One row of the timeline as elements.

import { h } from "./dom.ts";
import type { Item, ItemType } from "./timeline.ts";

const LABELS: Readonly<Record<ItemType, string>> = {
  thought: "Thought",
  action: "Action",
  observation: "Observed",
  output: "Output",
  message: "Message",
  tool: "Tool",
  error: "Error",
  step: "",
  state: "Run",
  artifact: "Artifact",
  erased: "Erased",
  other: "Event",
};
// Longer texts are shown in part until a reader asks for the rest.
const FOLDED_LINES = 14;
const FOLDED_CHARS = 1_600;
const LINE_HEIGHT = 21;
// Arguments that fit beside the name of their tool.
const INLINE_CHARS = 110;

/** Likely height of a row, CSS pixels. */
export function estimateHeight(item: Item): number {
  if (item.type === "step") return 44;
  const chars = item.text.length + item.detail.length + (item.result?.length ?? 0);
  const lines = Math.min(FOLDED_LINES, Math.max(1, Math.ceil(chars / 90)));
  return 22 + lines * LINE_HEIGHT;
}

/** Make the row of an item. */
export function makeRow(item: Item, isUnfolded: boolean, onToggle: () => void): HTMLElement {
  const row = h("article", {
    class: `row ${item.type}${item.isFailed ? " failed" : ""}${item.isOpen ? " open" : ""}`,
    "data-first": item.first,
    "data-last": item.last,
    "data-size": item.size,
    "aria-label": `${LABELS[item.type]} ${item.title}, event ${item.first}`,
  });
  const seq = item.size > 1 ? `${item.first}–${item.last}` : String(item.first);
  row.append(h("span", { class: "seq", title: `Event ${seq}` }, String(item.first)));
  if (item.type === "step") {
    row.append(h("h3", { class: "step-title" }, item.title, item.text ? h("span", {}, item.text) : null));
    return row;
  }
  row.append(h("span", { class: "kind" }, LABELS[item.type]));
  const body = h("div", { class: "body" });
  row.append(body);
  if (item.title)
    body.append(
      h("span", { class: `title${item.type === "tool" || item.type === "action" ? " code" : ""}` }, item.title),
    );
  if (item.type === "state" && item.text) body.append(h("span", { class: "aside" }, item.text));
  else addText(body, item.text, item.isCode, isUnfolded, onToggle);
  if (item.detail && item.detail.length <= INLINE_CHARS && !item.detail.includes("\n")) {
    body.querySelector(".title")?.after(h("span", { class: "inline" }, item.detail));
  } else addText(body, item.detail, true, isUnfolded, onToggle);
  if (item.result !== null) {
    const result = h("div", { class: "result" });
    addText(result, item.result || "(nothing)", true, isUnfolded, onToggle);
    body.append(result);
  }
  return row;
}

function addText(to: HTMLElement, whole: string, isCode: boolean, isUnfolded: boolean, onToggle: () => void): void {
  if (whole === "") return;
  const lines = whole.split("\n");
  const isLong = lines.length > FOLDED_LINES || whole.length > FOLDED_CHARS;
  const shown = isLong && !isUnfolded ? lines.slice(0, FOLDED_LINES).join("\n").slice(0, FOLDED_CHARS) : whole;
  to.append(isCode ? h("pre", { class: "text" }, shown) : h("p", { class: "text" }, shown));
  if (!isLong) return;
  const rest = lines.length > FOLDED_LINES ? `all ${lines.length} lines` : "all of it";
  to.append(
    h(
      "button",
      { class: "quiet more", type: "button", "aria-expanded": String(isUnfolded), click: onToggle },
      isUnfolded ? "Show less" : `Show ${rest}`,
    ),
  );
}
