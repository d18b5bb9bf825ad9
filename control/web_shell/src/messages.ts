// What the page says in each situation. The texts of refusals are the registry's; nothing here has an own one.

import { reasonCode } from "../../../khala/client/typescript/src/core/reason_codes.ts";
import { KhalaError, StaleCursor } from "../../../khala/client/typescript/src/errors.ts";
import { count } from "./dom.ts";
import { type Notice, receipt } from "./notice.ts";
import type { RunStory } from "./run_story.ts";
import { blank, type LinkState } from "./shell.ts";

/** The stream as a whole: what the bar says. */
export interface Link {
  readonly phase: "idle" | "connecting" | "live" | "offline" | "ended";
  readonly code: string;
  readonly retryAtMs: number;
  readonly error: Error | null;
}

export interface Choices {
  retry(): void;
  dismiss(): void;
  /** Forget what is kept of this run and take it up again at its oldest retained event. */
  startAgain(): void;
}

export function linkState(link: Link, isCut: boolean): LinkState {
  if (isCut) return { phase: "cut", words: "Network cut" };
  switch (link.phase) {
    case "live":
      return { phase: "live", words: "Live" };
    case "connecting":
      return { phase: "connecting", words: "Connecting" };
    case "offline":
      return { phase: "down", words: "Disconnected" };
    case "ended":
      return { phase: "down", words: "Ended" };
    case "idle":
      return { phase: "idle", words: "" };
  }
}

/** The constant text of a code, or of internal for one that this build does not know. */
export function codeText(code: string): string {
  return reasonCode(code)?.text ?? reasonCode("internal")?.text ?? code;
}

/** What is to be said about a run now; null: nothing. */
export function runNotice(story: RunStory, isCut: boolean, nowMs: number, choices: Choices): Notice | null {
  if (story.error !== null) return endNotice(story.error, choices);
  if (isCut) {
    return {
      tone: "warn",
      words: "Your network is cut. The run goes on without you; what it does now is kept for you.",
    };
  }
  if (story.phase === "offline") {
    const seconds = Math.max(0, Math.ceil((story.retryAtMs - nowMs) / 1000));
    return {
      tone: "warn",
      words: `Disconnected. ${codeText(story.offlineCode)}`,
      ticking: seconds > 0 ? `Trying again in ${seconds} s.` : "Trying again now.",
      code: story.offlineCode,
      actions: [["Try now", choices.retry]],
    };
  }
  if (story.phase === "reading") {
    return {
      tone: "plain",
      words: `Reading the history by pages: ${count(story.seq)} of ${count(story.headSeq)} events, each proven by the chain.`,
    };
  }
  if (story.outage !== null) return receipt(story.outage, choices.dismiss);
  if (story.isLagging) {
    return { tone: "plain", words: "You are taking this run more slowly than it writes. Nothing is lost." };
  }
  if (!story.isStored) {
    return { tone: "plain", words: "This browser keeps nothing for the page; after a reload it reads the run again." };
  }
  return null;
}

function endNotice(error: Error, choices: Choices): Notice {
  if (error instanceof StaleCursor) {
    return {
      tone: "bad",
      words: `This copy of the run cannot be continued. ${codeText(error.code)}`,
      code: error.code,
      actions: [["Load what is retained", choices.startAgain]],
    };
  }
  const actions = [["Try again", choices.retry]] as const;
  if (error instanceof KhalaError) return { tone: "bad", words: error.message, code: error.code, actions };
  return { tone: "bad", words: "This page made a mistake and stopped following. Nothing is lost.", actions };
}

export function signInPage(url: string, hasEnded: boolean): HTMLElement {
  return blank(
    hasEnded ? "Your session has ended" : "Watch your agents work",
    hasEnded
      ? codeText("reauth_required")
      : "Every event of every run, in order, as it happens. Lose your network, close the laptop, come back: nothing is missing, and you can check.",
    { action: ["Sign in", url], ...(hasEnded ? { code: "reauth_required" } : {}) },
  );
}

export function noRunsPage(): HTMLElement {
  return blank("No runs yet", "Record any command as a live run; it appears here while it works.", {
    lines: ["khala record --name hello -- ls -l", "khala import tests/fixtures/runs/missing-colon.jsonl"],
  });
}

export function chooseRunPage(): HTMLElement {
  return blank("Choose a run", "What it has done is shown from its first event, and what it does next as it happens.");
}

export function forbiddenPage(): HTMLElement {
  return blank("Not for you, or not there", codeText("forbidden"), { code: "forbidden", action: ["All runs", "#/"] });
}

export function upgradePage(): HTMLElement {
  return blank("This page is too old", codeText("upgrade_required"), {
    code: "upgrade_required",
    action: ["Load the new one", () => location.reload()],
  });
}

export function insecurePage(): HTMLElement {
  return blank(
    "This page is not on a secure connection",
    "Nothing could be verified here: browsers compute hashes on https and on localhost only. Open it there.",
  );
}

export function refusedPage(error: KhalaError, url: string): HTMLElement {
  return blank("This browser is refused", error.message, { code: error.code, action: ["Sign in again", url] });
}

export function unavailablePage(error: KhalaError, retry: () => void): HTMLElement {
  return blank("Khala does not answer", `${error.message} The page tries again by itself.`, {
    code: error.code,
    action: ["Try now", retry],
  });
}
