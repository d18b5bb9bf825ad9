// Time travel: positions, rhythm, speeds.

import assert from "node:assert/strict";
import { test } from "node:test";

import { PAUSE_MAX_MS, Player } from "../src/player.ts";

/** A player of events at these milliseconds. */
function playerOf(...times: readonly number[]): Player {
  const player = new Player();
  player.extend(times.length);
  player.setTimes(times);
  return player;
}

test("live shows the newest, and follows it", () => {
  const player = playerOf(0, 10);
  assert.equal(player.shown, 2);
  player.extend(5);
  assert.equal(player.shown, 5);
  player.extend(3);
  assert.equal(player.shown, 5);
});

test("seeking pauses, within the run", () => {
  const player = playerOf(0, 10, 20);
  player.seek(2);
  assert.deepEqual([player.mode, player.shown], ["paused", 2]);
  player.extend(9);
  assert.equal(player.shown, 2);
  player.seek(99);
  assert.equal(player.shown, 9);
  player.seek(-1);
  assert.equal(player.shown, 0);
  player.goLive();
  assert.equal(player.shown, 9);
});

test("playing keeps the rhythm of the commits at each speed", () => {
  for (const speed of [1, 4, 16]) {
    const player = playerOf(0, 400, 800, 1_600);
    player.speed = speed;
    player.play(1_000);
    player.step(1_000);
    assert.equal(player.shown, 1);
    player.step(1_000 + 399 / speed);
    assert.equal(player.shown, 1);
    player.step(1_000 + 401 / speed);
    assert.equal(player.shown, 2);
    player.step(1_000 + 1_599 / speed);
    assert.deepEqual([player.mode, player.shown], ["playing", 3]);
    player.step(1_000 + 1_601 / speed);
    assert.deepEqual([player.mode, player.shown], ["live", 4]);
  }
});

test("a long pause is shortened, a clock that went back costs nothing", () => {
  const player = playerOf(0, 3_600_000, 3_599_000, 3_600_000);
  assert.equal(player.offsetOf(2), PAUSE_MAX_MS);
  assert.equal(player.offsetOf(3), PAUSE_MAX_MS);
  assert.equal(player.offsetOf(4), PAUSE_MAX_MS + 1_000);
});

test("at max the run is filled in steps, then live", () => {
  const player = playerOf(...Array.from({ length: 1_000 }, (_, index) => index * 60_000));
  player.speed = Infinity;
  player.play(0);
  const shown: number[] = [];
  for (let step = 0; step < 3; step += 1) {
    player.step(step);
    shown.push(player.shown);
  }
  assert.deepEqual(shown, [400, 800, 1_000]);
  assert.equal(player.mode, "live");
});

test("events without times follow at once", () => {
  const player = new Player();
  player.extend(3);
  player.play(0);
  player.step(1);
  assert.equal(player.mode, "live");
});

test("pausing at live stays where it is; playing from the end begins anew", () => {
  const player = playerOf(0, 10);
  player.pause();
  assert.deepEqual([player.mode, player.shown], ["paused", 2]);
  player.play(0);
  assert.deepEqual([player.mode, player.shown], ["playing", 0]);
});
