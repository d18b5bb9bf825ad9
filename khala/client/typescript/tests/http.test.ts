/** The routes that a page needs, against a server of Node's own; and what a client is made of. */

import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { after, before, describe, test } from "node:test";
import { isDeviceId, loadDeviceId, makeDeviceId } from "../src/device.ts";
import { Forbidden, KhalaError, ReauthRequired, StaleCursor, Unavailable } from "../src/errors.ts";
import { KhalaHttp } from "../src/http.ts";
import { Khala } from "../src/khala.ts";
import { MemoryStore } from "../src/store/memory.ts";
import { World } from "./world.ts";

interface Answer {
  status?: number;
  type?: string;
  body: string;
}

let server: Server;
let origin = "";
let answer: Answer = { body: "{}" };
let asked: { method: string; url: string; bearer: string; body: string };

async function read(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const piece of request) text += String(piece);
  return text;
}

before(async () => {
  server = createServer((request, response) => {
    void read(request).then((body) => {
      const { method = "", url = "", headers } = request;
      asked = { method, url, bearer: headers.authorization ?? "", body };
      const type = answer.type ?? "application/json";
      response.writeHead(answer.status ?? 200, { "Content-Type": type, "X-Request-Id": "req_1" }).end(answer.body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  assert.ok(address !== null && typeof address !== "string");
  origin = `http://127.0.0.1:${address.port}`;
});
after(() => server.close());

function client(): KhalaHttp {
  return new KhalaHttp(origin, () => "bearer");
}

describe("KhalaHttp", () => {
  test("mints a token for topics and device", async () => {
    answer = { body: '{"token":"t.o.k","jti":"jti_1","expires_at":"1","grants":[]}' };
    assert.equal(await client().mintSyncToken(["app:o:n"], "dev_00000001"), "t.o.k");
    assert.deepEqual([asked.method, asked.url, asked.bearer], ["POST", "/api/sync/token", "Bearer bearer"]);
    const sent = JSON.parse(asked.body) as Record<string, unknown>;
    assert.deepEqual([sent["topics"], sent["device_id"]], [["app:o:n"], "dev_00000001"]);
  });

  test("reads pages, topics and runs, with 64-bit positions", async () => {
    answer = { body: '{"head_seq":"9007199254740993"}' };
    assert.equal((await client().readEvents("run_1", 2n ** 53n + 1n)).head_seq, 9007199254740993n);
    assert.equal(asked.url, "/v1/runs/run_1/events?after_seq=9007199254740993");
    assert.equal((await client().getTopic("run:r:events")).head_seq, 9007199254740993n);
    assert.equal(asked.url, "/v1/topics/run%3Ar%3Aevents");
    answer = { body: '{"runs":[]}' };
    assert.deepEqual((await client().listRuns("next page")).runs, []);
    assert.equal(asked.url, "/v1/runs?page_token=next%20page");
  });

  const refusals: [string, Answer, (error: KhalaError) => boolean][] = [
    [
      "forbidden with its topic",
      { status: 403, body: '{"code":"forbidden","message":"m","details":{"topic":"app:o:n"}}' },
      (error) => error instanceof Forbidden && error.topic === "app:o:n" && error.requestId === "req_1",
    ],
    [
      "signed out",
      { status: 401, body: '{"code":"reauth_required"}' },
      (error) => error instanceof ReauthRequired && !error.retryable,
    ],
    [
      "overload with its time",
      { status: 503, body: '{"code":"unavailable","retryable":true,"retry_after_ms":700}' },
      (error) => error instanceof Unavailable && error.retryAfterMs === 700,
    ],
    [
      "stale",
      { status: 410, body: '{"code":"stale_cursor.lineage_mismatch"}' },
      (error) => error instanceof StaleCursor,
    ],
    [
      "a code of the future",
      { status: 400, body: '{"code":"quasar","retryable":true}' },
      (error) => error.code === "internal" && !error.retryable && error.details["code"] === "quasar",
    ],
    ["a proxy's page", { status: 502, type: "text/html", body: "<h1>" }, (error) => error instanceof Unavailable],
    ["a proxy's limit", { status: 429, type: "text/html", body: "" }, (error) => error.code === "rate_limited"],
    ["a proxy's login", { status: 401, type: "text/html", body: "" }, (error) => error instanceof ReauthRequired],
    ["a teapot", { status: 418, type: "text/html", body: "" }, (error) => error.code === "internal"],
    ["an answer that is no JSON", { body: "<h1>" }, (error) => error instanceof Unavailable],
    ["an answer that is not of this route", { body: '{"quasar":1}' }, (error) => error instanceof Unavailable],
  ];
  for (const [name, given, isExpected] of refusals) {
    test(`refused: ${name}`, async () => {
      answer = given;
      await assert.rejects(client().getTopic("t"), (error) => error instanceof KhalaError && isExpected(error));
    });
  }

  test("no answer at all is Unavailable, and says nothing of the credential", async () => {
    const away = new KhalaHttp("http://127.0.0.1:1", () => "secret");
    await assert.rejects(
      away.getTopic("t"),
      (error) => error instanceof Unavailable && !String(error).includes("secret"),
    );
  });
});

describe("device ids", () => {
  test("made, kept, and replaced if they are none", () => {
    const kept = new Map<string, string>();
    const storage = {
      getItem: (key: string) => kept.get(key) ?? null,
      setItem: (key: string, value: string) => void kept.set(key, value),
    };
    Object.defineProperty(globalThis, "localStorage", { value: storage, configurable: true });
    const first = loadDeviceId();
    assert.ok(isDeviceId(first));
    assert.equal(loadDeviceId(), first);
    kept.set("khala.device_id", "usr_1");
    assert.notEqual(loadDeviceId(), first);
    assert.notEqual(makeDeviceId(), makeDeviceId());
  });

  test("a browser that keeps nothing has one for the page", () => {
    Object.defineProperty(globalThis, "localStorage", {
      get: () => {
        throw new Error("blocked");
      },
      configurable: true,
    });
    assert.ok(isDeviceId(loadDeviceId()));
  });
});

describe("new Khala", () => {
  const rest = { deviceId: "dev_00000001", store: new MemoryStore(), environment: new World() };

  test("needs to know where, and how to get a token", () => {
    assert.throws(() => new Khala({ ...rest, url: "khala.example", getToken: () => "t" }), RangeError);
    assert.throws(() => new Khala({ ...rest, getToken: () => "t" }), RangeError);
    assert.throws(() => new Khala({ ...rest, url: "https://khala.example" }), KhalaError);
  });

  test("the socket's URL follows from the origin, and carries no token", async () => {
    const urls: string[] = [];
    const world = new World();
    const { openSocket } = world;
    world.openSocket = (url?: string) => {
      urls.push(url ?? "");
      return openSocket();
    };
    const khala = new Khala({ ...rest, environment: world, url: "https://khala.example/", getToken: () => "secret" });
    void khala
      .subscribe("app:o:n")
      .next()
      .catch(() => {});
    await world.advance(0);
    assert.deepEqual(urls, ["wss://khala.example/sync/v1/ws"]);
  });
});
