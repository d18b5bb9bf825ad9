// Which runs this browser keeps: those that were looked at last. The others are forgotten here, and read again from
// the authority when somebody opens them.

import type { Settings } from "./settings.ts";

// A long run is a few megabytes.
export const KEPT_MAX = 20;

/** Return the runs in the order in which they were looked at, newest first, and those that no longer fit. */
export function lookAt(
  known: readonly string[],
  id: string,
): { readonly kept: readonly string[]; readonly dropped: readonly string[] } {
  const all = [id, ...known.filter((each) => each !== id)];
  return { kept: all.slice(0, KEPT_MAX), dropped: all.slice(KEPT_MAX) };
}

/** Remember that a person looks at a run; return the runs to forget. */
export async function noteLook(settings: Settings, userId: string, id: string): Promise<readonly string[]> {
  const name = `recent_runs ${userId}`;
  const { kept, dropped } = lookAt(((await settings.read(name)) ?? "").split(" ").filter(Boolean), id);
  await settings.write(name, kept.join(" "));
  return dropped;
}
