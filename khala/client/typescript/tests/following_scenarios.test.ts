/** following.json: what every client core says and knows while it follows one topic. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { adviseClose } from "../src/core/advice.ts";
import type { After, Cursor } from "../src/core/cursor.ts";
import type { Happening, Output } from "../src/core/happenings.ts";
import { SyncMachine } from "../src/core/sync.ts";
import { decodeBase64 } from "../src/wire/bytes.ts";
import { hex, load } from "./fixtures.ts";
import { sealNow, sha256 } from "./node_model.ts";
import { startBytes } from "../src/core/links.ts";

type Step =
  | { node: object }
  | { client: object }
  | { cut: number | null }
  | { connect: true }
  | { wait_ms: number }
  | { cursor: { seq: string; chain: string } }
  | { ended: string }
  | { closed: true };
interface Scenario {
  name: string;
  after: string | { seq: string; lineage: string; chain: string };
  steps: Step[];
}
interface Ending {
  close_code: number | null;
  error_code: string | null;
  code: string;
  step: string;
}

const FIXTURE = load<{ topic: string; scenarios: Scenario[]; endings: Ending[] }>("following.json");
const TOPIC = FIXTURE.topic;
const WELCOME = {
  welcome: { connection_id: "con_1", protocol: 1, schema: 1, token_expires_at: "300000", server_time: "0" },
};

function afterOf(text: Scenario["after"]): After {
  if (typeof text === "string") return text as After;
  return { topic: TOPIC, seq: BigInt(text.seq), lineage: text.lineage, chain: decodeBase64(text.chain) };
}

/** A machine that follows one topic, and what it said and reported. */
class Machine {
  private readonly machine = new SyncMachine({ deviceId: "dev_00000001", clientBuildId: "0.1.0" }, () => 0.5);
  private nowMs = 0;
  readonly said: object[] = [];
  ended: string | null = null;
  hasClosed = false;
  private cursor: Cursor | null = null;

  constructor(after: After) {
    this.machine.follow(TOPIC, after, sha256(startBytes(TOPIC)));
    this.connect();
  }

  private connect(): void {
    this.hasClosed = false;
    this.perform(this.machine.connected("token", [TOPIC], this.nowMs));
    assert.ok("hello" in this.said.shift()!);
    this.receive(WELCOME);
  }

  private receive(message: object): void {
    this.perform(this.machine.receiveUntrusted(JSON.stringify(message), this.nowMs));
  }

  private perform(output: Output): void {
    for (const text of output.send) this.said.push(JSON.parse(text) as object);
    if (output.close !== null) this.hasClosed = true;
    for (const happening of output.happenings) this.note(happening);
    this.cursor = this.machine.followOf(TOPIC)?.cursor ?? this.cursor;
  }

  private note(happening: Happening): void {
    if (happening.type === "topic_ended") this.ended = happening.error.code;
    if (happening.type === "seal_due") {
      const { topic, ticket, chain, links } = happening;
      this.perform(this.machine.sealed(topic, ticket, sealNow(chain, links)));
    }
    assert.notEqual(happening.type, "token_due");
  }

  take(step: Step): void {
    if (!("client" in step)) assert.deepEqual(this.said, [], `said too much before ${JSON.stringify(step)}`);
    if ("node" in step) this.receive(step.node);
    else if ("client" in step) assert.deepEqual(this.said.shift(), step.client);
    else if ("cut" in step) assert.equal(this.machine.disconnected(step.cut, this.nowMs).type, "reconnect");
    else if ("connect" in step) this.connect();
    else if ("wait_ms" in step) {
      this.nowMs += step.wait_ms;
      this.perform(this.machine.tick(this.nowMs));
    } else if ("cursor" in step) {
      const { seq, chain } = this.cursor!;
      assert.deepEqual({ seq: seq.toString(), chain: hex(chain!) }, step.cursor);
    } else if ("ended" in step) assert.equal(this.ended, step.ended);
    else if ("closed" in step) assert.ok(this.hasClosed);
    else assert.fail(`unknown step ${JSON.stringify(step)}`);
  }
}

describe("following.json", () => {
  for (const scenario of FIXTURE.scenarios) {
    test(scenario.name, () => {
      const machine = new Machine(afterOf(scenario.after));
      for (const step of scenario.steps) machine.take(step);
      assert.deepEqual(machine.said, []);
      assert.equal(
        machine.ended !== null,
        scenario.steps.some((step) => "ended" in step),
      );
      assert.equal(
        machine.hasClosed,
        scenario.steps.some((step) => "closed" in step),
      );
    });
  }
  for (const row of FIXTURE.endings) {
    test(`ending ${row.close_code} ${row.error_code}`, () => {
      const advised = adviseClose(row.close_code, row.error_code);
      assert.deepEqual([advised.code, advised.step], [row.code, row.step]);
    });
  }
});
