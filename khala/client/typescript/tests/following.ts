/** A client under test, and a loop that follows with it. */

import assert from "node:assert/strict";
import type { KhalaEvent } from "../src/events.ts";
import { Khala, type KhalaOptions, type SubscribeOptions } from "../src/khala.ts";
import type { Notice, Status } from "../src/notices.ts";
import { MemoryStore } from "../src/store/memory.ts";
import type { Subscription } from "../src/subscription.ts";
import type { LogModel } from "./node_model.ts";
import type { World } from "./world.ts";

export const DEVICE_ID = "dev_00000001";

export function clientOf(world: World, options: Partial<KhalaOptions> = {}): Khala {
  return new Khala({
    url: "https://khala.example",
    deviceId: DEVICE_ID,
    getToken: () => "token",
    store: new MemoryStore(),
    environment: world,
    ...options,
  });
}

/** Runs a loop and keeps what it is given. */
export class Follower {
  readonly events: KhalaEvent[] = [];
  readonly notices: Notice[] = [];
  readonly statuses: Status[] = [];
  error: unknown = null;
  isOver = false;
  readonly subscription: Subscription;

  constructor(khala: Khala, topic: string, options: SubscribeOptions = {}) {
    this.subscription = khala.subscribe(topic, {
      ...options,
      onNotice: (notice) => this.notices.push(notice),
      onStatus: (status) => this.statuses.push(status),
    });
    void this.loop();
  }

  private async loop(): Promise<void> {
    try {
      for await (const event of this.subscription) this.events.push(event);
    } catch (error) {
      this.error = error;
    }
    this.isOver = true;
  }

  get seqs(): readonly number[] {
    return this.events.map((event) => Number(event.seq));
  }

  get states(): readonly string[] {
    return this.statuses.map((status) => status.state);
  }

  count(type: Notice["type"]): number {
    return this.notices.filter((notice) => notice.type === type).length;
  }

  /** Everything of the log after `afterSeq` was given: once, in order, with the log's chain. */
  assertFollows(log: LogModel, afterSeq = 0): void {
    const expected = log.frames.slice(afterSeq).map((frame) => Number(frame.seq));
    assert.deepEqual(this.seqs, expected);
    for (const event of this.events) assert.deepEqual(event.chain, log.chainAt(event.seq));
  }
}
