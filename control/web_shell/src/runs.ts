// The list of a person's runs: what the runtime listed, and what `user:{id}:runs` has said since. Pure.

import { stateWord } from "./timeline.ts";

export interface RunSummary {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  /** Newest event that the summary knows of. */
  readonly headSeq: number;
  /** Whether it is no longer this person's: another owner has it. */
  readonly isWithdrawn?: boolean;
}

export class RunList {
  // With those that were withdrawn: what was said of them before, and arrives later, brings them not back.
  readonly #runs = new Map<string, RunSummary>();

  get size(): number {
    return this.sorted().length;
  }

  find(id: string): RunSummary | undefined {
    const run = this.#runs.get(id);
    return run?.isWithdrawn === true ? undefined : run;
  }

  /**
   * Take what is known of a run and return whether that is news. The list over HTTP and the topic arrive in
   * either order, so the one that knows of more events counts.
   */
  put(run: RunSummary): boolean {
    const known = this.#runs.get(run.id);
    if (known !== undefined && known.headSeq > run.headSeq) return false;
    const isSame =
      known !== undefined &&
      known.headSeq === run.headSeq &&
      known.state === run.state &&
      (known.isWithdrawn ?? false) === (run.isWithdrawn ?? false);
    if (isSame) return false;
    this.#runs.set(run.id, { ...run, name: run.name || known?.name || "" });
    return true;
  }

  /** Newest first: ids begin with their time. */
  sorted(): RunSummary[] {
    const shown = [...this.#runs.values()].filter((run) => run.isWithdrawn !== true);
    return shown.sort((a, b) => (a.id < b.id ? 1 : -1));
  }
}

/** Return the summary in a `run.summarised` event; null if it is none. */
export function summaryOf(data: Readonly<Record<string, unknown>>): RunSummary | null {
  const id = data["run_id"];
  if (typeof id !== "string" || id === "") return null;
  return {
    id,
    name: String(data["name"] ?? ""),
    state: stateWord(data["state"]),
    headSeq: Number(data["head_seq"] ?? 0),
    ...(data["withdrawn"] === true ? { isWithdrawn: true } : {}),
  };
}

/** What a run is called where it has no name. */
export function runTitle(run: { readonly id: string; readonly name: string }): string {
  return run.name || `Run ${run.id.slice(-8)}`;
}
