// Heights of rows: sums and places equal those of a plain list, after any changes.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Heights } from "../src/heights.ts";

test("sums and places equal a plain list's", () => {
  const heights = new Heights();
  let plain: number[] = [];
  let seed = 7;
  const random = (most: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return seed % most;
  };
  for (let round = 0; round < 400; round += 1) {
    const length = random(4_000);
    const estimate = 20 + random(30);
    heights.resize(length, () => estimate);
    plain = Array.from({ length }, (_, index) => plain[index] ?? estimate);
    for (let change = 0; change < 5 && length > 0; change += 1) {
      const index = random(length);
      plain[index] = random(300);
      heights.set(index, plain[index] ?? 0);
    }
    const index = random(length + 1);
    const before = plain.slice(0, index).reduce((sum, height) => sum + height, 0);
    assert.equal(heights.before(index), before);
    assert.equal(heights.length, length);
    if (index < length && (plain[index] ?? 0) > 0) assert.equal(heights.find(before), index);
  }
});

test("below the end is the last row, and an empty list has none but the first", () => {
  const heights = new Heights();
  assert.equal(heights.find(0), 0);
  heights.resize(3, () => 10);
  assert.equal(heights.find(9), 0);
  assert.equal(heights.find(10), 1);
  assert.equal(heights.find(1_000), 2);
  assert.equal(heights.total, 30);
});
