// Folds events into the rows that a person reads. Pure: no DOM, no clock.
//
// Deltas of one message become that message, a call and its return one row, neighbouring output one block.
// Invariants:
// 1. Applying events one by one gives the same items as applying them in any batches.
// 2. Each seq from 1 to the last is in exactly one item's `seqs`; an item's place is that of its first.

/** One applied event. */
export interface RunEvent {
  readonly seq: number;
  readonly kind: string;
  /** JSON mapping of the payload; of an unknown kind whatever could be read. */
  readonly data: Readonly<Record<string, unknown>>;
}

export type ItemType =
  | "thought"
  | "action"
  | "observation"
  | "output"
  | "message"
  | "tool"
  | "error"
  | "step"
  | "state"
  | "artifact"
  | "erased"
  | "other";

/** One row. */
export interface Item {
  readonly type: ItemType;
  /** Of the first event in it; also its identity. */
  readonly first: number;
  last: number;
  /** How many events are folded into it. */
  size: number;
  /** Short words in front: a tool's name, a role, a new state. */
  title: string;
  text: string;
  /** Second text: arguments of a call. */
  detail: string;
  /** What a call returned; null while it has not. */
  result: string | null;
  /** Whether text and result are code or a terminal's, not prose. */
  readonly isCode: boolean;
  isFailed: boolean;
  /** More of it is expected: a message without its end, a call without its return. */
  isOpen: boolean;
}

// One block of output stays small enough to be laid out at once.
const OUTPUT_MAX_CHARS = 6_000;
const OUTPUT_MAX_EVENTS = 60;

const STATE_WORDS: Readonly<Record<string, string>> = {
  RUN_STATE_CREATED: "created",
  RUN_STATE_RUNNING: "running",
  RUN_STATE_PAUSED: "paused",
  RUN_STATE_SUCCEEDED: "succeeded",
  RUN_STATE_FAILED: "failed",
  RUN_STATE_CANCELLED: "cancelled",
};

/** The word for a run's state, from its name on the wire. */
export function stateWord(state: unknown): string {
  return (
    STATE_WORDS[text(state)] ??
    (text(state)
      .replace(/^RUN_STATE_/, "")
      .toLowerCase() ||
      "unknown")
  );
}

export function isEnded(state: string): boolean {
  return state === "succeeded" || state === "failed" || state === "cancelled";
}

export class Timeline {
  readonly items: Item[] = [];
  name = "";
  state = "";
  lastSeq = 0;
  readonly #messages = new Map<string, { index: number; points: number }>();
  readonly #calls = new Map<string, number>();

  /** Take the next event and return the index of the item that is new or has changed. */
  apply(event: RunEvent): number {
    this.lastSeq = event.seq;
    const data = event.data;
    switch (event.kind) {
      case "run.started":
        this.name = text(data["name"]);
        this.state = "running";
        return this.#add(event, "state", { title: "started", text: joined(data["name"], data["agent"]) });
      case "run.state_changed":
        this.state = stateWord(data["to_state"]);
        return this.#add(event, "state", { title: this.state, text: text(data["reason"]) });
      case "run.finished":
        this.state = stateWord(data["state"]);
        return this.#add(event, "state", {
          title: this.state,
          text: [
            data["exit_status"] === undefined ? "" : `exit status ${text(data["exit_status"])}`,
            text(data["reason"]),
          ]
            .filter(Boolean)
            .join(" · "),
          detail: text(data["result"]),
          isFailed: this.state === "failed",
        });
      case "run.transferred":
        return this.#add(event, "state", { title: "transferred", text: text(data["reason"]) });
      case "step.started":
        return this.#add(event, "step", { title: `Step ${text(data["step"])}`, text: text(data["title"]) });
      case "thought":
        return this.#add(event, "thought", { title: text(data["role"]), text: text(data["text"]) });
      case "action":
        return this.#add(event, "action", {
          title: text(data["tool"]),
          text: text(data["text"]),
          detail: json(data["args"]),
          isCode: true,
        });
      case "observation":
        return this.#add(event, "observation", { text: text(data["text"]), isCode: true });
      case "output":
        return this.#output(event);
      case "message.delta":
        return this.#delta(event);
      case "message.done":
        return this.#done(event);
      case "tool.called":
        return this.#called(event);
      case "tool.returned":
        return this.#returned(event);
      case "error":
        return this.#add(event, "error", {
          title: text(data["type"]),
          text: text(data["text"]),
          isCode: true,
          isFailed: true,
        });
      case "artifact":
        return this.#add(event, "artifact", {
          title: text(data["name"]),
          text: text(data["text"]) || text(data["uri"]),
          detail: text(data["media_type"]),
          isCode: true,
        });
      case "khala.erased":
        return this.#add(event, "erased", {
          title: text(data["original_kind"]),
          text: text(data["reason"]) || "Erased by an administrator.",
        });
      default:
        return this.#add(event, "other", {
          title: text(data["name"]) || event.kind,
          text: json(event.kind === "custom" ? data["data"] : data),
          isCode: true,
        });
    }
  }

  #add(event: RunEvent, type: ItemType, parts: Partial<Omit<Item, "type" | "first">>): number {
    this.items.push({
      type,
      first: event.seq,
      last: event.seq,
      size: 1,
      title: "",
      text: "",
      detail: "",
      result: null,
      isCode: false,
      isFailed: false,
      isOpen: false,
      ...parts,
    });
    return this.items.length - 1;
  }

  #at(index: number): Item {
    const item = this.items[index];
    if (item === undefined) throw new RangeError(`item ${index} of ${this.items.length}`);
    return item;
  }

  #extend(index: number, event: RunEvent): Item {
    const item = this.#at(index);
    item.last = event.seq;
    item.size += 1;
    return item;
  }

  #output(event: RunEvent): number {
    const stream = event.data["stream"] === "OUTPUT_STREAM_STDERR" ? "stderr" : "";
    const index = this.items.length - 1;
    const before = this.items[index];
    if (
      before?.type === "output" &&
      before.title === stream &&
      before.last === event.seq - 1 &&
      before.size < OUTPUT_MAX_EVENTS &&
      before.text.length < OUTPUT_MAX_CHARS
    ) {
      const item = this.#extend(index, event);
      item.text += (item.text.endsWith("\n") || item.text === "" ? "" : "\n") + text(event.data["text"]);
      return index;
    }
    return this.#add(event, "output", { title: stream, text: text(event.data["text"]), isCode: true });
  }

  #delta(event: RunEvent): number {
    const id = text(event.data["message_id"]);
    const added = text(event.data["text"]);
    const known = this.#messages.get(id);
    if (known === undefined) {
      const index = this.#add(event, "message", { text: added, isOpen: true });
      this.#messages.set(id, { index, points: points(added) });
      return index;
    }
    const item = this.#extend(known.index, event);
    // Offsets count code points. What repeats text that is there is cut off: a producer may retry.
    const offset = Number(event.data["offset"] ?? known.points);
    const fresh =
      offset < known.points
        ? Array.from(added)
            .slice(known.points - offset)
            .join("")
        : added;
    if (item.isOpen) {
      item.text += fresh;
      known.points += points(fresh);
    }
    return known.index;
  }

  #done(event: RunEvent): number {
    const id = text(event.data["message_id"]);
    const whole = text(event.data["text"]);
    const known = this.#messages.get(id);
    if (known === undefined) {
      const index = this.#add(event, "message", { text: whole, title: text(event.data["role"]) });
      this.#messages.set(id, { index, points: points(whole) });
      return index;
    }
    const item = this.#extend(known.index, event);
    item.text = whole;
    item.title = text(event.data["role"]);
    item.isOpen = false;
    return known.index;
  }

  #called(event: RunEvent): number {
    const index = this.#add(event, "tool", {
      title: text(event.data["tool"]),
      detail: json(event.data["args"]),
      isCode: true,
      isOpen: true,
    });
    const id = text(event.data["call_id"]);
    if (id !== "") this.#calls.set(id, index);
    return index;
  }

  #returned(event: RunEvent): number {
    const failure = text(event.data["error"]);
    const result = failure || json(event.data["result"]);
    const index = this.#calls.get(text(event.data["call_id"]));
    if (index === undefined) {
      return this.#add(event, "tool", { title: "returned", result, isCode: true, isFailed: failure !== "" });
    }
    const item = this.#extend(index, event);
    item.result = result;
    item.isFailed = failure !== "";
    item.isOpen = false;
    return index;
  }
}

function text(value: unknown): string {
  return typeof value === "string" ? value : value === undefined || value === null ? "" : String(value);
}

function joined(...values: readonly unknown[]): string {
  return values.map(text).filter(Boolean).join(" · ");
}

function points(value: string): number {
  let total = 0;
  for (const _ of value) total += 1;
  return total;
}

/** A value as a person reads it: text as it is, a list of texts as a command line, else JSON. */
function json(value: unknown): string {
  if (value === undefined || value === null) return "";
  if (typeof value === "string") return value;
  if (Array.isArray(value) && value.length > 0 && value.every((part) => typeof part === "string"))
    return value.join(" ");
  return JSON.stringify(value);
}
